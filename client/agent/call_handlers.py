"""Handle calls on the agent's socket: bytes in, bytes or a stable error code out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc

from client.agent.call_journal import CallJournal
from client.agent.dispatch import answer, refuse_frame
from client.agent.socket_call import SERVICE, AgentRefusalError, from_frame, to_frame
from client.site.disk_watch import DiskWatch
from common.protocol.protocol import AgentApi


class AgentCalls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Takes every method, known or not: one that does not exist is refused and written down.

    Args:
        agent: Who answers.
        journal: Where every call is written down.
        disk: Told when the disk is full, and when it no longer is.
    """

    def __init__(
        self, agent: AgentApi, journal: CallJournal | None, disk: DiskWatch | None
    ) -> None:
        self._agent, self._journal, self._disk = agent, journal, disk

    def service(self, details: Any) -> Any:
        """Return the handler of a call; health checks have their own."""
        method = str(details.method).removeprefix(f"/{SERVICE}/")
        return _handler(self._agent, method, self._journal, self._disk)


def _handler(
    agent: AgentApi, method: str, journal: CallJournal | None, disk: DiskWatch | None
) -> Any:
    def handle(frame: bytes, context: Any) -> bytes:
        try:
            try:
                header, payload = from_frame(frame)
            except ValueError:  # truncated, or not UTF-8
                refuse_frame(method, frame, journal, disk)
            return to_frame(*answer(agent, method, header, payload, journal, disk))
        except AgentRefusalError as refusal:
            context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
            context.set_details(refusal.code)
            return b""

    behaviour = cast(Callable[[bytes, Any], bytes], handle)
    return grpc.unary_unary_rpc_method_handler(behaviour)
