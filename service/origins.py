"""Keeps other web sites from using a visitor's browser to give orders to this service."""

from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException


def refuse_other_sites(request: Request) -> None:
    """A dependency of POST routes without a JSON body, which a browser sends without asking first.

    Raises:
        HTTPException: 403.
    """
    if is_from_another_site(request.headers):
        raise HTTPException(403, "sent by a web page of another site; send it from this one")


def is_from_another_site(headers: Headers) -> bool:
    """Every browser says where a request comes from; other clients say nothing.

    Sec-Fetch-Site tells it, but browsers send that to https and to this machine alone; on plain
    http to another machine the Origin of what is posted remains.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def is_by_tls(request: Request) -> bool:
    """Whether the browser that posts this speaks TLS, if only to a proxy in front of the service.

    What a proxy says of it is believed from this machine alone, and few proxies are there; the
    browser itself names the scheme with what it posts.
    """
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith(
        "https://"
    )
