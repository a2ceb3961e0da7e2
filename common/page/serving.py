"""Serve a live page on a socket until it is stopped; on loopback unless asked otherwise."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from common.commands.cli_output import Output
from common.errors import ConfigError
from common.page.guard import AsgiApp, ReadOnlyGuard
from common.process.stop_signals import stop_on_signals

START_S = 20.0
STOP_S = 5.0


def serve_page(
    app: AsgiApp, *, host: str, port: int, names: Sequence[str] | None, output: Output
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
    app: AsgiApp, *, host: str = "127.0.0.1", port: int = 0, names: Sequence[str] = ()
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
