"""Serve the site agent on a Unix socket: gRPC with byte handlers, one per protocol method.

The socket lies in a folder that only the agent's user may enter (0700) and is itself 0600;
grpcio creates it 0755, so it is bound inside a private folder and narrowed before use. With
`share` the group may call too (0750 and 0660): a relay that runs under another user.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from client.agent.call_journal import CallJournal
from client.agent.dispatch import answer_frame
from client.agent.log_files import events_path, site_audit_log
from client.agent.site_agent import SiteAgent
from client.agent.socket_call import (
    CHUNK_BYTES,
    MAX_FRAME_BYTES,
    SERVICE,
    AgentRefusalError,
    call_agent,
)
from client.site.disk_watch import DiskWatch, written_places
from client.site.enrol_connection import SiteConnection
from client.site.hospital_roster import HospitalRoster
from common.errors import ConfigError
from common.process.event_log import close_events, write_events
from common.process.grpc_health import is_serving
from common.process.stop_signals import stop_on_signals
from common.protocol.protocol import METHODS, AgentApi
from common.study.site_policy import SitePolicy
from common.wire import WireMessage

MAX_SOCKET_PATH = 107
"""Bytes that Linux allows for the path of a Unix socket."""

MAX_CALLS = 8
SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", 2 * CHUNK_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
]
STOP_GRACE_S = 2.0

_log = logging.getLogger("tumorboard.agent")


def serve(
    agent: AgentApi,
    socket: Path,
    *,
    journal: CallJournal | None = None,
    disk: DiskWatch | None = None,
    share: bool = False,
) -> None:
    """Serve the agent on `socket` until SIGTERM or SIGINT; see `serving`.

    Raises:
        ConfigError: The socket cannot be made there.
    """
    stop = stop_on_signals()
    with serving(agent, socket, journal=journal, disk=disk, share=share):
        _log.info("listening on %s", socket)
        stop.wait()


@contextmanager
def serving(
    agent: AgentApi,
    socket: Path,
    *,
    journal: CallJournal | None = None,
    disk: DiskWatch | None = None,
    share: bool = False,
) -> Iterator[None]:
    """Serve the agent inside the block; the socket is removed afterwards.

    Args:
        agent: The agent.
        socket: Path of the Unix socket.
        journal: Where every call is written down.
        disk: Remembers which places are full, and reports it over gRPC health.
        share: Let members of the socket's group call too: a relay under another user.

    Raises:
        ConfigError: The socket cannot be made there.
    """
    _prepare_folder(socket, share=share)
    server = grpc.server(
        ThreadPoolExecutor(max_workers=MAX_CALLS, thread_name_prefix="agent"),
        options=SERVER_OPTIONS,
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    server.add_generic_rpc_handlers((_AgentCalls(agent, journal, disk),))
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise _unusable(socket, str(error)) from None
    socket.chmod(0o660 if share else 0o600)
    server.start()
    for service in ("", SERVICE):
        _set_health(checks, service, True)
    if disk is not None:
        disk.report_to(partial(_set_health, checks))
    try:
        yield
    finally:
        checks.enter_graceful_shutdown()
        server.stop(STOP_GRACE_S).wait()
        socket.unlink(missing_ok=True)


class _AgentCalls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Takes every method, known or not: one that does not exist is refused and written down."""

    def __init__(
        self, agent: AgentApi, journal: CallJournal | None, disk: DiskWatch | None
    ) -> None:
        self._agent, self._journal, self._disk = agent, journal, disk
        self._large = threading.Lock()

    def service(self, details: Any) -> Any:
        """Return the handler of a call; health checks have their own."""
        method = str(details.method).removeprefix(f"/{SERVICE}/")

        def handle(chunks: Iterator[bytes], context: Any) -> bytes:
            try:
                with _joined(chunks, self._large) as frame:
                    return answer_frame(self._agent, method, frame, self._journal, self._disk)
            except AgentRefusalError as refusal:
                context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
                context.set_details(refusal.code)
                return b""

        behaviour = cast(Callable[[Iterator[bytes], Any], bytes], handle)
        return grpc.stream_unary_rpc_method_handler(behaviour)


@contextmanager
def _joined(chunks: Iterator[bytes], large: threading.Lock) -> Iterator[bytes]:
    """Yield a frame; one frame of several chunks is in memory at a time, the others wait.

    A frame that grows too long is cut off, and refused as truncated.
    """
    first, second = next(chunks, b""), next(chunks, None)
    if second is None:
        yield first
        return
    with large:
        frame = bytearray(first + second)
        for chunk in chunks:
            if len(frame) + len(chunk) > MAX_FRAME_BYTES:
                frame.clear()
                break
            frame += chunk
        yield bytes(frame)


def is_healthy(socket: Path, *, timeout_s: float = 2.0) -> bool:
    """Return whether an agent answers health checks on the socket."""
    return is_serving(f"unix:{socket}", SERVICE, timeout_s=timeout_s)


def ask_agent(socket: Path, method: str, request: WireMessage) -> Any:
    """Return the reply of the agent behind a socket, of the type that `METHODS` says.

    Raises:
        AgentRefusalError: With the agent's stable code.
    """
    reply_type = METHODS[method][1]
    return reply_type.decode(*call_agent(socket, method, *request.encode()))


def _set_health(checks: health.HealthServicer, service: str, serves: bool) -> None:
    status = health_pb2.HealthCheckResponse
    checks.set(service, status.SERVING if serves else status.NOT_SERVING)


def check_socket_path(socket: Path) -> None:
    """Refuse a path that no Unix socket can have.

    Raises:
        ConfigError: It is too long.
    """
    length = len(str(socket).encode())
    if length > MAX_SOCKET_PATH:
        raise _unusable(
            socket, f"the path has {length} bytes; a Unix socket's may have {MAX_SOCKET_PATH}"
        )


def _prepare_folder(socket: Path, *, share: bool) -> None:
    check_socket_path(socket)
    try:
        socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        permissions = 0o750 if share else 0o700
        if socket.parent.stat().st_mode & 0o777 & ~permissions:
            raise _unusable(socket, f"others may enter {socket.parent}; chmod {permissions:o} it")
        if socket.is_socket() and is_healthy(socket):
            raise _unusable(socket, "another agent is already listening there")
        socket.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(socket, str(error)) from None


def _unusable(socket: Path, why: str) -> ConfigError:
    return ConfigError(
        "the agent's socket cannot be used",
        where=str(socket),
        why=why,
        cure="choose a short path in a folder that only the agent's user may enter: --socket",
    )


def run_agent(
    reload: Callable[[], SitePolicy],
    connection: SiteConnection,
    socket: Path | None,
    *,
    share: bool,
) -> None:
    """Serve the agent of a hospital until SIGTERM or SIGINT.

    Args:
        reload: Reads the hospital's policy; rules and consents count as soon as they stand there.
        connection: The site kit; its roster counts as soon as it is installed.
        socket: Path of the Unix socket; `agent.sock` in the private folder by default.
        share: Let the socket's group call too.

    Raises:
        ConfigError: Socket or identity cannot be used.
        LedgerError: The audit log is damaged (AUDIT_LOG).
    """
    policy = reload()
    socket = socket or policy.state.parent / "agent.sock"
    log = site_audit_log(policy)
    agent = SiteAgent(policy, reload=reload, roster=HospitalRoster(connection, log))
    handler = write_events(events_path(policy))
    try:
        log.append("agent_started", socket=str(socket))
        journal, disk = CallJournal(policy.site_id, log), DiskWatch(written_places(policy))
        serve(agent, socket, journal=journal, disk=disk, share=share)
        log.append("agent_stopped")
    finally:
        close_events(handler)
