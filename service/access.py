"""The outermost layer: a request id, one log line, and the last resort for unexpected errors.

Nothing a client sent is logged but the method and the path: no query, no body, and of an
unexpected error its type and where it arose, since messages and locals may quote a prompt.
"""

import re
import time
import traceback
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.tracing import Tracing
from service.metrics import Metrics
from service.problems import problem

HEADER = "x-request-id"
PREFERRED = "preference-applied"
"""Of an answer that was held back (service/waiting.py)."""
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_LOGGED_PATH = 200
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
FAILED = 500

log = structlog.get_logger(__name__)


class Access:
    """Pure ASGI, so that it neither buffers nor spawns a task."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get(HEADER, ""))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        began = time.perf_counter()
        status: int | None = None
        waited = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, waited
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                waited = PREFERRED in headers
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001  (the last resort)
            log.error("unexpected error", error=_names(error), frames=_frames(error))  # noqa: TRY400
            if status is not None:
                raise RuntimeError("the response was broken off; see the log before") from None
            response = problem(scope["path"], 500, "something broke here; the log says what")
            await response(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            method = _method(scope)
            self._metrics.request(method, _route(scope), status or 499, seconds, waited=waited)
            ended_s = time.time()
            self._tracing.record(
                f"{method} {_route(scope)}",
                request_id,
                began_s=ended_s - seconds,
                ended_s=ended_s,
                attributes={"http.response.status_code": status or 499},
                failed=status is None or status >= FAILED,
            )
            log.info(
                "request",
                method=method,
                path=scope["path"][:MAX_LOGGED_PATH],
                status=status,
                ms=round(seconds * 1000, 1),
            )


def _request_id(offered: str) -> str:
    return offered if SANE_ID.fullmatch(offered) else uuid.uuid4().hex


def _method(scope: Scope) -> str:
    """Of all that are none, one name: HTTP allows any word, and a metric keeps each for ever."""
    method: str = scope["method"]
    return method if method in METHODS else "other"


def _route(scope: Scope) -> str:
    """As it is declared: with `{id}`, not with every id; of all that is none, one name."""
    route: str | None = getattr(scope.get("route"), "path", None)
    if route is None:
        return "none"
    # A route of an included router does not know the router's prefix.
    parts = scope["path"].split("/")
    return "/".join(parts[: len(parts) - route.count("/")]) + route


def _names(error: BaseException) -> list[str]:
    """The error's type, then those of its causes."""
    names, link = [], error.__cause__ or error.__context__
    names.append(f"{type(error).__module__}.{type(error).__qualname__}")
    while link is not None:
        names.append(f"{type(link).__module__}.{type(link).__qualname__}")
        link = link.__cause__ or link.__context__
    return names


def _frames(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
