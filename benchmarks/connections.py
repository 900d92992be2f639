"""Ten thousand clients at once, each with a connection of its own and one request for a picture.

    make bench-connections             build/bench/connections.json

All connect before any of them asks. Each is to be answered: with 202, or told to come later. What
was accepted is there afterwards, once each; what was refused left nothing. No claim about time.
"""

import argparse
import asyncio
import json
import resource
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from benchmarks.stack import running_stack

OUT = Path("build/bench/connections.json")
CONNECTIONS = 10_000
PATIENCE_S = 600.0
"""For all of them together."""
CONNECTING = 200
"""At once: more than a listening socket's backlog would only be dropped by the kernel."""
BODY = json.dumps({"prompt": "a red apple", "num_inference_steps": 1}).encode()


@dataclass(frozen=True)
class Storm:
    connections: int
    """That stood at the same time."""
    answers: dict[str, int]
    """Status -> how many."""
    unanswered: int
    accepted: int
    lost: int
    """Accepted, and not to be read afterwards."""
    doubled: int
    """Accepted jobs that two clients were told of."""

    @property
    def sound(self) -> bool:
        expected = {"202", "429", "503"}
        return not (self.unanswered or self.lost or self.doubled) and expected.issuperset(
            self.answers
        )


async def storm(host: str, port: int, count: int) -> Storm:
    """Connect `count` times, then ask over all connections at once."""
    gate = asyncio.Semaphore(CONNECTING)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            return await asyncio.open_connection(host, port)

    async with asyncio.timeout(PATIENCE_S):
        streams = await asyncio.gather(*(connect() for _ in range(count)))
        answers = await asyncio.gather(
            *(_ask(reader, writer, host, port) for reader, writer in streams)
        )
    statuses = Counter(status for status, _ in answers if status)
    ids = [body["id"] for status, body in answers if status == "202"]
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as client:
        there = [
            (await client.get(f"/v1/generations/{job_id}")).status_code == httpx.codes.OK
            for job_id in ids
        ]
    return Storm(
        connections=count,
        answers=dict(sorted(statuses.items())),
        unanswered=count - sum(statuses.values()),
        accepted=len(ids),
        lost=there.count(False),
        doubled=len(ids) - len(set(ids)),
    )


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> tuple[str, dict[str, str]]:
    """The status and the body; an empty status where no whole answer came."""
    head = (
        f"POST /v1/generations HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    try:
        writer.write(head.encode() + BODY)
        await writer.drain()
        answer = await reader.read()
        first, _, body = answer.partition(b"\r\n\r\n")
        return first.split(b" ")[1].decode(), json.loads(body)
    except (OSError, IndexError, ValueError):
        return "", {}
    finally:
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connections")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    count = parser.parse_args().connections
    _allow_files(count + 1000)
    with running_stack(workers=1) as stack:
        address = httpx.URL(stack.url)
        assert address.port is not None
        outcome = asyncio.run(storm(address.host, address.port, count))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(asdict(outcome), indent=2) + "\n")
    sys.stdout.write(f"{outcome}\n{OUT}\n")
    sys.exit(0 if outcome.sound else 1)


def _allow_files(count: int) -> None:
    """Every connection is an open file, on both sides: the children inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


if __name__ == "__main__":
    main()
