"""Serve a live page on a socket until it is stopped; on loopback unless asked otherwise.

Every request is checked. The page has nothing to write to, so only GET and HEAD exist. A browser
can be lured to a name that an attacker points at this machine (DNS rebinding): a Host header that
nobody announced is therefore refused. The headers of an answer forbid other sites to read or
frame the page, and the page itself to load anything from elsewhere.
"""

import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from common.commands.cli_output import Output
from common.errors import ConfigError
from common.process.stop_signals import stop_on_signals

START_S = 20.0
STOP_S = 5.0


def serve_page(
    app: "AsgiApp", *, host: str, port: int, names: Sequence[str] | None, output: Output
) -> None:
    """Serve the page until SIGTERM or SIGINT, and say where it is once it can be opened.

    Args:
        app: The page.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        names: Names it may be called by from elsewhere; needed for any address but loopback.
        output: Takes the address.

    Raises:
        ConfigError: The address is not loopback and no name was given, or cannot be had.
    """
    names = names or ()
    check_exposure(host, names)
    stop = stop_on_signals()
    with page_served(app, host=host, port=port, names=names) as url:
        output.say(f"Page: {url}  (stop with Ctrl-C)")
        output.result({"url": url})
        stop.wait()


@contextmanager
def page_served(
    app: "AsgiApp", *, host: str = "127.0.0.1", port: int = 0, names: Sequence[str] = ()
) -> Iterator[str]:
    """Serve the page from a thread inside the block; yields its address.

    Raises:
        ConfigError: The address cannot be had.
    """
    with _listening(host, port) as listener:
        config = uvicorn.Config(
            ReadOnlyGuard(app, names=[host, *names]),
            access_log=False,
            log_level="warning",
            log_config=None,
            server_header=False,
            limit_concurrency=64,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=2,
            ws="none",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="page", daemon=True)
        thread.start()
        try:
            yield _address(host, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(STOP_S)


def check_exposure(host: str, names: Sequence[str]) -> None:
    """Refuse to listen beyond this machine unless a name says that it is meant.

    Raises:
        ConfigError: `host` is not loopback and there is no name.
    """
    if is_loopback(host) or names:
        return
    raise ConfigError(
        "the page would be open to other machines",
        where=f"--host {host}",
        why="it requires no password and does not use TLS",
        cure="leave it on 127.0.0.1 and reach it through `ssh -L` or a proxy with TLS and a "
        "login; if this is intended, name its address: --public-name NAME",
    )


def is_loopback(host: str) -> bool:
    """Return whether an address stays on this machine.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unavailable(host, port, error) from None
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(64)
        except OSError as error:
            raise _unavailable(host, port, error) from None
        yield listener


def _unavailable(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(
        "the page cannot listen there",
        where=f"--host {host} --port {port}",
        why=error.strerror or str(error),
        cure="choose another --port (0 takes a free one), or stop what is using it",
    )


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


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
