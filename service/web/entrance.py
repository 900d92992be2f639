"""Strangers who read pages are shown the way in, where programs are told of a problem."""

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response

LOGIN = "/login"


def reads_pages(headers: Headers) -> bool:
    """Whether a browser shows the answer to a person: no program asks for HTML."""
    return is_part(headers) or "text/html" in headers.get("accept", "")


def is_part(headers: Headers) -> bool:
    """Whether the answer goes into a page that is there already."""
    return "hx-request" in headers


def to_login(headers: Headers) -> Response:
    if is_part(headers):
        return Response(status_code=401, headers={"HX-Redirect": LOGIN})
    return RedirectResponse(LOGIN, 303)
