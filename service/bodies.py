"""What a request's body may be: JSON, and not too large."""

import email.message

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem


class BodyLimit:
    """Reads each body here, and passes it on only when all of it is within bounds.

    Bodies are a few kilobytes of JSON, so holding one costs nothing; and what is too large is
    refused whether the client announced its length or not.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not (announced.isascii() and announced.isdigit()):
            response = problem(scope["path"], 400, "Content-Length must be a number")
            await response(scope, receive, send)
            return
        # Compared as text first: a number of a thousand digits is not worth parsing.
        if len(announced) > len(str(self._max_bytes)) + 8 or int(announced) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return

        messages: list[Message] = []
        size, more = 0, True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > self._max_bytes:
                await self._refuse(scope, receive, send)
                return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(
            scope["path"],
            413,
            f"the body is larger than the {self._max_bytes} bytes taken here",
            title="Body too large",
            headers={"Connection": "close"},
        )
        await response(scope, receive, send)


def require_json(request: Request) -> None:
    """A dependency of every route that takes a body.

    It also stops web pages of other origins: a browser asks before it sends this type.

    Raises:
        HTTPException: 415.
    """
    message = email.message.Message()
    message["content-type"] = request.headers.get("content-type", "")
    subtype = message.get_content_subtype()
    json = message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )
    if not json:
        raise HTTPException(415, "the body must be JSON, sent as Content-Type: application/json")
