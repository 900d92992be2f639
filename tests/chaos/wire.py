"""The network between two hosts: it can be cut and mended.

The broker of `trce up` listens on a unix socket. A worker of another host reaches it through this
wire. Cut, it swallows nothing and refuses nothing: bytes wait, as they do in a network that has
lost a link, and pass when it is mended.
"""

import asyncio
import contextlib
import threading
from pathlib import Path

CHUNK_BYTES = 1 << 16


class Wire:
    """From a TCP port to a unix socket, in a thread of its own."""

    def __init__(self, host: str, socket: Path) -> None:
        self.host = host
        self.port = 0
        self._socket = socket
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._closing = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()
        self._listening.wait()

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.set)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(5)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._whole.set()
        server = await asyncio.start_server(self._carry, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._closing.wait()
        server.close()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            far, there = await asyncio.open_unix_connection(self._socket)
        except OSError:  # the broker is being restarted
            back.close()
            return
        pumps = [
            asyncio.ensure_future(self._pump(near, there)),
            asyncio.ensure_future(self._pump(far, back)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            there.close()
            back.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
