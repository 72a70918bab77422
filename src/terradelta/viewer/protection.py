"""Keeps other pages and other host names out of a server on this machine.

Any page that a browser shows can send requests to 127.0.0.1. Its name in the Host header (DNS
rebinding) or in the Origin header identifies it, and it does not have the token. Other users of
this machine do not have it either: only the address that `terradelta view` prints contains it, no
answer does.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""Host names of the server for a browser on this machine, or at the end of a tunnel to it."""
TOKEN_HEADER = "x-terradelta-token"
SAFE_METHODS = ("GET", "HEAD")
MAX_BODY_BYTES = 64 * 1024
"""Largest body of a request; the longest review is a quarter of it."""
READ_ONLY = (
    "this page is read-only: to review, open the address that `terradelta view` printed, with "
    "the token in it"
)


class Protection:
    """Middleware that refuses foreign requests and forbids browsers to load foreign content.

    Args:
        app: Application that answers the others.
        token: Token required by requests that write.
        image_origin: Scheme and host of a basemap, the only outside source that pages may load.
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
            # Providers of basemaps need the referrer; no one else gets it.
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

        headers = Headers(scope=scope)
        problem = self._find_problem(scope["method"], scope["path"], headers)
        answer = self._app
        if problem is None and scope["method"] not in SAFE_METHODS:
            body = await _read_body(receive, headers)
            if body is None:
                problem = 413, f"send at most {MAX_BODY_BYTES:,} bytes"
            else:
                receive = _replay(body, receive)
        if problem is not None:
            status, text = problem
            # The rest of a refused request is not read.
            answer = JSONResponse({"detail": text}, status, {"Connection": "close"})
        await answer(scope, receive, send_with_headers)

    def _find_problem(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return status and text of a refusal, or None."""
        host = headers.get("host", "")
        if _name(host) not in HOSTS or len(headers.getlist("host")) != 1:
            return 400, "this server answers to 127.0.0.1 and localhost only"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "another site may not ask this server"
        is_visit = path == "/" and headers.get("sec-fetch-mode") == "navigate"
        is_visit &= headers.get("sec-fetch-dest") == "document" and method == "GET"
        # The page itself contains no data; the browser comes from the file that `view` opens.
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not is_visit:
            return 403, "another site may not ask this server"
        if method in SAFE_METHODS:
            return None
        if headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return 403, "send JSON"
        given = headers.get(TOKEN_HEADER, "")
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return 403, READ_ONLY
        return None


async def _read_body(receive: Receive, headers: Headers) -> bytes | None:
    """Return the body of a request, None if it is too large."""
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 9 or int(length) > MAX_BODY_BYTES):
        return None
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that gives the body read already, then the later messages."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or "" if "@" not in host else ""
    except ValueError:
        return ""
