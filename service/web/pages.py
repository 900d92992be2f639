"""From a template to an answer: whole pages, parts of pages, and errors in either."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse

from core.callers import Caller
from core.errors import AppError
from service.problems import FieldProblem, field_problems, from_app_error
from service.web import assets
from service.web.entrance import is_part

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
STOP_ASKING = 286
"""What makes htmx poll no longer, and show the answer in the place of what asked."""
FORM = "form"
"""Where a problem is that is about no one field."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Without it a browser would not say where a form comes from (service.origins).
    "Referrer-Policy": "same-origin",
    # The same address is a page or a part of one.
    "Vary": "HX-Request",
}


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.filters["moment"] = _moment
_templates.globals["asset"] = assets.address
# Compiled when the process starts, and not while somebody waits for the first page.
for _name in _templates.list_templates():
    _templates.get_template(_name)


def page(request: Request, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
    """A template filled in. Parts of pages are templates that begin with an underscore."""
    caller: Caller | None = getattr(request.state, "caller", None)
    text = _templates.get_template(f"{template}.html.jinja").render(
        caller=caller, path=request.url.path, **shown
    )
    return HTMLResponse(text, status, headers=HEADERS)


def go(request: Request, address: str) -> Response:
    """To another page, as it is done for a form, and for a part of a page."""
    if is_part(request.headers):
        return Response(status_code=204, headers=HEADERS | {"HX-Redirect": address})
    return RedirectResponse(address, 303)


class PageRoute(APIRoute):
    """A route whose errors are shown to people; they are worded for them already."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_for_people(request: Request) -> Response:
            try:
                return await handle(request)
            except AppError as error:
                request.app.state.parts.metrics.refusal(error)
                status = from_app_error(request.url.path, error).status_code
                return _refusal(request, status, error.detail)
            except RequestValidationError as error:
                return _refusal(request, 422, "", field_problems(error.errors()))
            except ValidationError as error:
                found = [{**one, "loc": (FORM, *one["loc"])} for one in error.errors()]
                return _refusal(request, 422, "", field_problems(found))
            except HTTPException as error:
                return _refusal(request, error.status_code, error.detail)

        return handle_for_people


def _refusal(
    request: Request, status: int, detail: str, fields: list[FieldProblem] | None = None
) -> Response:
    template = "_refusal" if is_part(request.headers) else "refusal"
    # A part that asks for itself again and again is to stop when what it shows is gone for good.
    is_gone = status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
    if is_gone and is_part(request.headers) and request.method == "GET":
        status = STOP_ASKING
    return page(request, template, status=status, detail=detail, fields=fields or [])
