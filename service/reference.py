"""/docs and /redoc: the OpenAPI document for people, without a file from any other host.

Swagger UI and ReDoc come with the package fastapi-offline, of which only the files are used. The
script that starts Swagger UI is a file, too, so that the policy needs to allow none in the page.
"""

from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Response

FOLDER = resources.files("fastapi_offline") / "static"
START = """
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
});
"""
FILES = {
    "swagger-ui-bundle.js": (FOLDER / "swagger-ui-bundle.js").read_bytes(),
    "swagger-ui.css": (FOLDER / "swagger-ui.css").read_bytes(),
    "redoc.standalone.js": (FOLDER / "redoc.standalone.js").read_bytes(),
    "start.js": START.encode(),
}
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}
ADDRESSES = ("/docs", "/redoc", *(f"/reference/{name}" for name in FILES))
# Both set styles from their scripts; ReDoc searches in a worker that it makes itself.
POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; worker-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>TRCE service: API</title>{style}
</head>
<body>
{body}
</body>
</html>
"""
SWAGGER = PAGE.format(
    style='<link rel="stylesheet" href="/reference/swagger-ui.css">',
    body='<div id="swagger-ui"></div>\n<script src="/reference/swagger-ui-bundle.js"></script>\n'
    '<script src="/reference/start.js"></script>',
)
REDOC = PAGE.format(
    style="",
    body='<redoc spec-url="/openapi.json"></redoc>\n'
    '<script src="/reference/redoc.standalone.js"></script>',
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def show_swagger() -> Response:
    return _page(SWAGGER)


@router.get("/redoc")
def show_redoc() -> Response:
    return _page(REDOC)


@router.get("/reference/{name}")
def read_file(name: str) -> Response:
    """The door lets nobody ask for a name that is none without a key; those get a 404."""
    if name not in FILES:
        return Response(status_code=404)
    return Response(
        FILES[name],
        media_type=MEDIA_TYPES[Path(name).suffix],
        headers={"Cache-Control": "public, max-age=86400"},
    )


def _page(text: str) -> Response:
    headers = {"Content-Security-Policy": POLICY}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)
