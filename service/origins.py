"""Keeps other web sites from using a visitor's browser to give orders to this service."""

from fastapi import Request
from starlette.exceptions import HTTPException


def refuse_other_sites(request: Request) -> None:
    """A dependency of POST routes without a body, which a browser sends without asking first.

    Every browser says where a request comes from; other clients say nothing.

    Raises:
        HTTPException: 403.
    """
    if request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        raise HTTPException(403, "sent by a web page of another site; send it from this one")
