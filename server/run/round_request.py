"""What is asked of whom in a round of training."""

from __future__ import annotations

from common.protocol.protocol import TrainRequest
from common.wire import arrays_digest
from server.aggregate.method import control_of
from server.session.checkpoint import Checkpoint
from server.session.session import RunSession


def train_request(session: RunSession, checkpoint: Checkpoint) -> TrainRequest:
    """Return what every site is asked in the round after a checkpoint."""
    arrays, counted = dict(checkpoint.parameters), {}
    if session.study.training.local.control_variates:
        arrays |= control_of(checkpoint.memory)
        counted = {site: r.round for r in checkpoint.history for site in r.sites}
    return TrainRequest(
        run_id=session.state.run_id,
        round=checkpoint.round + 1,
        model_digest=arrays_digest(arrays),
        counted=counted,
        arrays=arrays,
    )


def asked_sites(session: RunSession, number: int, attempt: int) -> tuple[str, ...]:
    """Return who trains in a round: all, or in a cyclic schedule the one whose turn it is.

    If that one fails, the next attempt asks the next.
    """
    enrolled = session.state.enrolled
    if session.study.training.schedule == "all":
        return enrolled
    return (enrolled[(number + attempt - 2) % len(enrolled)],)
