"""The door: nothing behind it is reached before it is known who asks.

Pure ASGI and before the body is read, so that a stranger's body costs nothing. What a caller may
do is for the routes to say (`service.callers`).
"""

import structlog
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import ApiKeyRefused, AppError
from service import reference
from service.doorkeeper import Doorkeeper
from service.problems import from_app_error
from service.rates import Allowance
from service.web import assets
from service.web.entrance import LOGIN, reads_pages, to_login

OPEN_TO_ALL = frozenset(
    {
        *("/healthz", "/readyz", "/openapi.json", *reference.ADDRESSES),
        *("/favicon.ico", LOGIN, *assets.ADDRESSES),
    }
)
"""They say nothing about anyone, and answer load balancers and people who have no key yet."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Door:
    def __init__(self, app: ASGIApp, *, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_TO_ALL:
            await self._app(scope, receive, send)
            return
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        try:
            caller = await run_in_threadpool(
                self._doorkeeper.identify,
                Headers(scope=scope),
                request_id=request_id,
                changes=scope["method"] not in SAFE,
            )
        except AppError as error:
            response = from_app_error(scope["path"], error)
            if isinstance(error, ApiKeyRefused) and reads_pages(Headers(scope=scope)):
                response = to_login(Headers(scope=scope))
            await response(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["caller"] = caller
        structlog.contextvars.bind_contextvars(tenant=caller.tenant, key=caller.key_id or None)

        async def send_with_allowance(message: Message) -> None:
            allowance: Allowance | None = state.get("allowance")
            if message["type"] == "http.response.start" and allowance is not None:
                MutableHeaders(scope=message).update(allowance.headers)
            await send(message)

        await self._app(scope, receive, send_with_allowance)
