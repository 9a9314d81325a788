"""The viewer page: its files as they are, held in memory, with a policy that lets nothing else run.

Whatever a client asks for is a name in a table here, never a path.
"""

from pathlib import Path

import xxhash
from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)


def page_router() -> APIRouter:
    """Give the routes of the page: at / and beside it, outside of the API's schema."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES}
    etags = {name: f'"{xxhash.xxh3_64_hexdigest(content)}"' for name, content in files.items()}

    async def give(request: Request, name: str = "index.html") -> Response:
        if name not in files:
            raise HTTPException(404)
        headers = {
            "etag": etags[name],
            "cache-control": "no-cache",
            "content-security-policy": CONTENT_SECURITY_POLICY,
        }
        if request.headers.get("if-none-match") == etags[name]:
            return Response(status_code=304, headers=headers)
        return Response(files[name], headers=headers, media_type=_TYPES[Path(name).suffix])

    for path in ("/", "/{name}"):
        router.add_api_route(path, give, methods=["GET", "HEAD"], response_class=Response)
    return router
