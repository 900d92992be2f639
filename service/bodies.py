"""What a request's body may be: JSON, and not too large."""

import asyncio
import email.message
import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem


class BodyLimit:
    """Reads each body here, and passes it on only when all of it is within bounds.

    Bodies are a few kilobytes of JSON, or one picture, so holding one costs little; and what is
    too large is refused whether the client announced its length or not.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        within_s: float,
        larger: Mapping[str, int] | None = None,
    ) -> None:
        """
        Args:
            within_s: how long a client may take to send its body.
            larger: the limits of addresses with one of their own.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._within_s = within_s
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._larger.get(scope["path"], self._max_bytes)
        announced = Headers(scope=scope).get("content-length", "0")
        if not (announced.isascii() and announced.isdigit()):
            response = problem(scope["path"], 400, "Content-Length must be a number")
            await response(scope, receive, send)
            return
        # Compared as text first: a number of a thousand digits is not worth parsing.
        if len(announced) > len(str(max_bytes)) + 8 or int(announced) > max_bytes:
            await _refuse(scope, receive, send, max_bytes)
            return

        messages: list[Message] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self._within_s):
                while more and size <= max_bytes:
                    message = await receive()
                    messages.append(message)
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            await _refuse_slow(scope, receive, send, self._within_s)
            return
        if size > max_bytes:
            await _refuse(scope, receive, send, max_bytes)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
    response = problem(
        scope["path"],
        413,
        f"the body is larger than the {max_bytes} bytes taken here",
        title="Body too large",
        headers={"Connection": "close"},
    )
    await response(scope, receive, send)


async def _refuse_slow(scope: Scope, receive: Receive, send: Send, within_s: float) -> None:
    response = problem(
        scope["path"],
        408,
        f"the body did not arrive within {within_s:g} s",
        headers={"Connection": "close"},
    )
    await response(scope, receive, send)


async def require_json(request: Request) -> None:
    """A dependency of every route that takes a body.

    It also stops web pages of other origins: a browser asks before it sends this type.

    Raises:
        HTTPException: 415; 400 for an object that has a name twice, of which others may read the
            one value (a filter in front of us, say) and we the other.
    """
    message = email.message.Message()
    message["content-type"] = request.headers.get("content-type", "")
    subtype = message.get_content_subtype()
    if message.get_content_maintype() != "application" or not (
        subtype == "json" or subtype.endswith("+json")
    ):
        raise HTTPException(415, "the body must be JSON, sent as Content-Type: application/json")
    # FastAPI has read it by now; that it is JSON is certain, or there is none.
    if body := await request.body():
        json.loads(body, object_pairs_hook=_refuse_repeated_names)


def _refuse_repeated_names(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise HTTPException(400, "an object in the body has the same name twice; send it once")
