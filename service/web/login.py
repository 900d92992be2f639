"""/login, /logout: an API key opens a session, so that a browser need not keep the key."""

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import RedirectResponse

from core.errors import ApiKeyRefused
from service.callers import known
from service.origins import is_by_tls, refuse_other_sites
from service.sessions import COOKIE, LIFE_S, session_id
from service.web.entrance import LOGIN
from service.web.forms import Form
from service.web.pages import PageRoute, page
from service.wiring import InParts

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(LOGIN)
def show_login(request: Request, parts: InParts) -> Response:
    return page(request, "login", needed=parts.doorkeeper.needs_key(), refused="")


@router.post(LOGIN, dependencies=[Depends(refuse_other_sites)])
def log_in(request: Request, parts: InParts, form: Form) -> Response:
    try:
        opened = parts.sessions.open(form.get("key", "").strip())
    except ApiKeyRefused as error:
        return page(request, "login", status=401, needed=True, refused=error.detail)
    response = RedirectResponse("/", 303)
    response.set_cookie(
        COOKIE,
        opened,
        max_age=LIFE_S,
        httponly=True,
        samesite="strict",
        secure=is_by_tls(request),
    )
    return response


@router.post("/logout", dependencies=[known(), Depends(refuse_other_sites)])
def log_out(request: Request, parts: InParts) -> Response:
    opened = session_id(request.headers.get("cookie", ""))
    if opened is not None:
        parts.sessions.close(opened)
    response = RedirectResponse(LOGIN, 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=is_by_tls(request))
    return response
