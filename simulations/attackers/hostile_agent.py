"""Act as a malicious hospital: the real agent, but every round's reply is altered.

Run as `python -m simulations.attackers.hostile_agent --site HOME --socket PATH`.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from client.agent.call_journal import CallJournal
from client.agent.log_files import site_audit_log
from client.agent.service import serve
from client.agent.site_agent import SiteAgent
from client.site.site_folder import load_policy
from common.errors import ErrorCode
from common.protocol.protocol import TrainReply, TrainRequest
from common.wire import Arrays

Tamper = Callable[[TrainReply], TrainReply]
EXTRA_BYTES = 48 * 1024 * 1024


class _Truncated(TrainReply):
    """Loses its last bytes on the way."""

    def encode(self) -> tuple[str, bytes]:
        header, payload = super().encode()
        return header, payload[:-7]


def _changed(change: Callable[[Arrays], Arrays]) -> Tamper:
    def tamper(reply: TrainReply) -> TrainReply:
        arrays = {name: array.copy() for name, array in reply.arrays.items()}
        return reply.model_copy(update={"arrays": change(arrays)})

    return tamper


def _poison(arrays: Arrays) -> Arrays:
    next(iter(arrays.values())).flat[0] = np.nan
    return arrays


def _reshape(arrays: Arrays) -> Arrays:
    return {name: array[..., None] for name, array in arrays.items()}


def _blow_up(arrays: Arrays) -> Arrays:
    return {name: array + np.float32(1e9) for name, array in arrays.items()}


def _oversize(arrays: Arrays) -> Arrays:
    return arrays | {"heads.extra": np.ones(EXTRA_BYTES // 4, dtype=np.float32)}


def _truncate(reply: TrainReply) -> TrainReply:
    return _Truncated.model_construct(**dict(reply))


EARLIER = "reply of the round before"
ATTACKS: dict[str, tuple[Tamper, set[ErrorCode]]] = {
    "NaN": (_changed(_poison), {ErrorCode.NOT_FINITE}),
    "wrong shape": (_changed(_reshape), {ErrorCode.PAYLOAD}),
    "norm 1e9": (_changed(_blow_up), {ErrorCode.PAYLOAD, ErrorCode.NOT_FINITE}),
    "weight 1e12": (
        lambda reply: reply.model_copy(update={"weights": dict.fromkeys(reply.weights, 1e12)}),
        {ErrorCode.PAYLOAD, ErrorCode.PROTOCOL},
    ),
    "truncated payload": (_truncate, {ErrorCode.PAYLOAD}),
    "oversized payload": (_changed(_oversize), {ErrorCode.PAYLOAD}),
    "reply to another round": (
        lambda reply: reply.model_copy(update={"round": reply.round + 1}),
        {ErrorCode.PROTOCOL},
    ),
    EARLIER: (lambda reply: reply, {ErrorCode.PROTOCOL}),
    "name of another site": (
        lambda reply: reply.model_copy(update={"site_id": "somebody-else"}),
        {ErrorCode.PROTOCOL},
    ),
}
"""What is done -> codes with which the coordinator may refuse it; round k tries the k-th."""


class HostileAgent(SiteAgent):
    """Trains as it should, then tampers with what it sends."""

    _before: TrainReply | None = None

    def train(self, request: TrainRequest) -> TrainReply:
        """Return a tampered reply."""
        name, (tamper, _) = list(ATTACKS.items())[(request.round - 1) % len(ATTACKS)]
        reply = super().train(request)
        before, self._before = self._before or reply, reply
        return tamper(before if name == EARLIER else reply)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m simulations.attackers.hostile_agent")
    parser.add_argument("--site", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    arguments = parser.parse_args()
    reload = partial(load_policy, arguments.site)
    policy = reload()
    journal = CallJournal(policy.site_id, site_audit_log(policy))
    serve(HostileAgent(policy, reload=reload), arguments.socket, journal=journal)


if __name__ == "__main__":
    main()
