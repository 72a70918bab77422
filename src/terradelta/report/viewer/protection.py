"""What keeps other pages and other names out of a server on this machine.

Any page that a browser shows can send requests to 127.0.0.1. Its own name in the Host header (DNS
rebinding) or in the Origin header gives it away, and it knows no token.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""Names that a browser on this machine, or at the end of a tunnel to it, calls the server by."""
TOKEN_HEADER = "x-terradelta-token"
SAFE_METHODS = ("GET", "HEAD")


class Protection:
    """Middleware that refuses foreign requests, and tells browsers to load nothing from elsewhere.

    Args:
        app: What answers the others.
        token: What a request that writes must bring along.
        image_origin: Scheme and host of an outside basemap, the one thing pages may load.
    """

    def __init__(self, app: ASGIApp, token: str, image_origin: str | None = None):
        self._app, self._token = app, token
        elsewhere = f" {image_origin}" if image_origin else ""
        policy = {
            "default-src": "'none'",
            "script-src": "'self'",
            "worker-src": "'self'",
            "style-src": "'self'",
            "img-src": f"'self' data: blob:{elsewhere}",
            "connect-src": f"'self'{elsewhere}",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        self._headers = {
            "Content-Security-Policy": "; ".join(f"{key} {value}" for key, value in policy.items()),
            "X-Content-Type-Options": "nosniff",
            # Providers of basemaps want to know who asks; nobody else learns anything.
            "Referrer-Policy": "origin" if image_origin else "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send):
        """Answer or refuse a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        problem = self._find_problem(scope["method"], Headers(scope=scope))
        answer = self._app
        if problem is not None:
            status, text = problem
            answer = JSONResponse({"detail": text}, status_code=status)
        await answer(scope, receive, send_with_headers)

    def _find_problem(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Return status and text of a refusal, None where there is nothing to refuse."""
        host = headers.get("host", "")
        if _name(host) not in HOSTS or len(headers.getlist("host")) != 1:
            return 400, "this server answers to 127.0.0.1 and localhost only"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "another site may not ask this server"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "another site may not ask this server"
        if method in SAFE_METHODS:
            return None
        if headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return 403, "send JSON"
        given = headers.get(TOKEN_HEADER, "")
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return 403, "the server was started again, or this is not its page: reload it"
        return None


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or "" if "@" not in host else ""
    except ValueError:
        return ""
