"""Handle calls on the agent's socket: bytes in, bytes or a stable error code out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import grpc

from client.agent.call_journal import CallJournal
from client.agent.dispatch import answer, refuse_frame
from client.agent.socket_call import (
    MAX_FRAME_BYTES,
    SERVICE,
    AgentRefusalError,
    from_frame,
    to_frame,
)
from client.site.disk_watch import DiskWatch
from common.protocol.protocol import AgentApi


class AgentCalls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Takes every method, known or not: one that does not exist is refused and written down.

    Args:
        agent: Who answers.
        journal: Where every call is written down.
        disk: Notified when the disk is full, and when it no longer is.
    """

    def __init__(
        self, agent: AgentApi, journal: CallJournal | None, disk: DiskWatch | None
    ) -> None:
        self._agent, self._journal, self._disk = agent, journal, disk
        self._large = threading.Lock()

    def service(self, details: Any) -> Any:
        """Return the handler of a call; health checks have their own."""
        method = str(details.method).removeprefix(f"/{SERVICE}/")
        return _handler(self._agent, method, self._journal, self._disk, self._large)


def _handler(
    agent: AgentApi,
    method: str,
    journal: CallJournal | None,
    disk: DiskWatch | None,
    large: threading.Lock,
) -> Any:
    def handle(chunks: Iterator[bytes], context: Any) -> bytes:
        try:
            frame = _joined(chunks, large)
            try:
                header, payload = from_frame(frame)
            except ValueError:  # truncated, too long, or not UTF-8
                refuse_frame(method, frame, journal, disk)
            return to_frame(*answer(agent, method, header, payload, journal, disk))
        except AgentRefusalError as refusal:
            context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
            context.set_details(refusal.code)
            return b""

    behaviour = cast(Callable[[Iterator[bytes], Any], bytes], handle)
    return grpc.stream_unary_rpc_method_handler(behaviour)


def _joined(chunks: Iterator[bytes], large: threading.Lock) -> bytes:
    """Return a frame of several chunks; one such frame is read at a time, the others wait.

    A frame that grows too long is cut off, and refused as truncated.
    """
    first, second = next(chunks, b""), next(chunks, None)
    if second is None:
        return first
    with large:
        frame = bytearray(first + second)
        for chunk in chunks:
            if len(frame) + len(chunk) > MAX_FRAME_BYTES:
                return b""
            frame += chunk
        return bytes(frame)
