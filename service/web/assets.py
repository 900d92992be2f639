"""/static: the page's style, icon and script. They say nothing about anyone, so anyone reads them.

An address carries the digest of what it shows, so browsers may keep that for as long as they like.
"""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Response

FOLDER = Path(__file__).parent / "static"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}

FILES = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES}
ADDRESSES = tuple(f"/static/{name}" for name in FILES)

router = APIRouter(prefix="/static", include_in_schema=False)


def address(name: str) -> str:
    return f"/static/{name}?{hashlib.sha256(FILES[name]).hexdigest()[:12]}"


@router.get("/{name}")
def read_asset(name: str) -> Response:
    """The door lets nobody ask for a name that is none without a key; those get a 404."""
    if name not in FILES:
        return Response(status_code=404)
    return Response(FILES[name], media_type=MEDIA_TYPES[Path(name).suffix], headers=KEPT)
