"""Guard a live page: check every request, and add headers to every answer.

The page has nothing to write to, so only GET and HEAD exist. A browser can be lured to a name
that an attacker points at this machine (DNS rebinding): a Host header that nobody announced is
therefore refused. The headers forbid other sites to read or frame the page, and the page itself
to load anything from elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
METHODS = ("GET", "HEAD")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: dict[str, str] = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class ReadOnlyGuard:
    """ASGI middleware: refuses foreign hosts and all methods that write.

    Args:
        app: The page.
        names: Names a browser may call it by, beside those of this machine's loopback.
    """

    def __init__(self, app: AsgiApp, *, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = LOOPBACK_NAMES | {name.lower() for name in names}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif host_name(_header(scope, b"host")) not in self._names:
            await _refuse(send, 421, "This page is not served under that name.")
        elif scope["method"] not in METHODS:
            await _refuse(send, 405, "This page can only be read.", allow=", ".join(METHODS))
        else:
            await self._app(scope, receive, _with_headers(send))


def host_name(header: str) -> str:
    """Return the name in a Host header, in lower case, without port and brackets.

    Example:
        >>> host_name("LocalHost:8080"), host_name("[::1]:8080"), host_name("evil.example")
        ('localhost', '::1', 'evil.example')
    """
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _header(scope: Message, name: bytes) -> str:
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            headers = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            missing = [pair for pair in headers if pair[0] not in present]
            message = {**message, "headers": [*message["headers"], *missing]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, text: str, **headers: str) -> None:
    all_headers = {"content-type": "text/plain; charset=utf-8", **headers}
    pairs = [(k.encode(), v.encode()) for k, v in all_headers.items()]
    sending = _with_headers(send)
    await sending({"type": "http.response.start", "status": status, "headers": pairs})
    await sending({"type": "http.response.body", "body": f"{text}\n".encode()})
