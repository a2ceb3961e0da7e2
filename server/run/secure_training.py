"""One training round in mode distributed: two exchanges, one opened sum, one step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np

from common.errors import ErrorCode, ProtocolError, RunError
from common.privacy.integer_encoding import IntegerEncoding, unflatten
from common.protocol.protocol import TrainReply, TrainRequest
from common.study.private_round import encoding_of
from common.wire import Arrays, arrays_digest, joint_norm
from server.aggregate.gradient_mean import descent
from server.exchange.enrolment import enrol_returned
from server.exchange.secure_rounds import SecureRounds, VoidSumError
from server.exchange.validate_reply import (
    NOISE_SPREADS,
    NOMINAL_SLACK,
    check_masked_reply,
)
from server.run.round_step import advance, note_absence, note_reply
from server.session.checkpoint import VOID, Checkpoint, RoundRecord
from server.session.session import RunSession

MAX_VOID_ROUNDS = 3
"""So many void rounds in a row end the run; each has cost its spend."""


def run_secure_round(session: RunSession, sums: SecureRounds, checkpoint: Checkpoint) -> Checkpoint:
    """Return the next checkpoint, not yet saved; a void round leaves the model as it was.

    Raises:
        RunError: Too few sites agree on keys, or too many rounds in a row were void.
    """
    started = time.monotonic()
    session.enter(phase="round")
    enrol_returned(session)
    sums.ensure_keys()
    request = TrainRequest(
        run_id=session.state.run_id,
        round=checkpoint.round + 1,
        model_digest=arrays_digest(checkpoint.parameters),
        arrays=checkpoint.parameters,
    )
    record = RoundRecord(round=request.round, sites=[], update_norm=0.0)
    direction: Arrays = {}
    try:
        totals, changes = _opened(session, sums, request)
        direction = descent(session.study, checkpoint.parameters, totals)
    except VoidSumError as void:
        changes = {"dropped": void.dropped, "facts": {VOID: void.why}}
        session.output.say(f"round {request.round} is void: {void.why} {void.dropped}")
        _check_streak(session, checkpoint, void)
    seconds = round(time.monotonic() - started, 3)
    record = record.model_copy(update={**changes, "seconds": seconds})
    return advance(session.study, checkpoint, direction, record)


def _opened(
    session: RunSession, sums: SecureRounds, request: TrainRequest
) -> tuple[Arrays, dict[str, object]]:
    """Return the opened gradient sums and the fields of the round's record."""
    shapes = {name: array.shape for name, array in request.arrays.items()}
    encoding = encoding_of(session.study, shapes)

    def ask(site_ids: list[str]) -> Mapping[str, Arrays | str | None]:
        replies = session.link.exchange(
            "train",
            dict.fromkeys(site_ids, request),
            deadline_s=session.study.quorum.round_timeout_s,
            optional=session.away,
            needed=session.needed_of(site_ids),
        )
        return {s: _upload(session, sums, s, replies.get(s), request) for s in site_ids}

    opened, dropped = sums.open_sum(request.round, encoding.dimension, ask)
    _check_norm(session, encoding, opened.total, len(opened.survivors), dropped)
    totals: Arrays = dict(unflatten(encoding.decode(opened.total), shapes))
    return totals, {"sites": opened.survivors, "dropped": dropped}


def _upload(
    session: RunSession, sums: SecureRounds, site_id: str, reply: object, request: TrainRequest
) -> Arrays | str | None:
    if reply is None:
        note_absence(session, site_id)
        return None
    session.heard(site_id)
    if not isinstance(reply, TrainReply):
        return note_reply(session, site_id, reply)
    try:
        check_masked_reply(reply, site_id, request, sums.key_session)
    except ProtocolError as error:
        session.output.say(f"round {request.round}: upload of {site_id} refused\n{error}")
        session.journal.write(
            "update_refused", round=request.round, site=site_id, code=str(error.code)
        )
        return str(error.code)
    session.state = session.state.with_site(
        site_id,
        epsilon_spent=reply.epsilon_spent,
        ledger_head=reply.ledger_head,
        last_round=reply.round,
    )
    return reply.arrays


def _check_norm(
    session: RunSession,
    encoding: IntegerEncoding,
    total: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    n_survivors: int,
    dropped: dict[str, str],
) -> None:
    """Give a round up whose sum is longer than clipping and noise allow.

    A site that misbehaves cannot be told from the others in a sum; the model is left as it was.
    """
    bound = NOMINAL_SLACK * encoding.clip * session.study.training.nominal_patients
    bound += encoding.noise_sd(n_survivors) * (math.sqrt(encoding.dimension) + NOISE_SPREADS)
    norm = joint_norm({"sum": encoding.decode(total)})
    if norm > bound:
        why = f"the opened sum has norm {norm:.3g}, at most {bound:.3g} is possible"
        raise VoidSumError(why, dropped)


def _check_streak(session: RunSession, checkpoint: Checkpoint, void: VoidSumError) -> None:
    streak = 1
    for record in reversed(checkpoint.history):
        if VOID not in record.facts:
            break
        streak += 1
    if streak >= MAX_VOID_ROUNDS:
        raise RunError(
            f"{streak} rounds in a row were void",
            where=session.state.run_id,
            why=void.why + "".join(f"; {s}: {code}" for s, code in sorted(void.dropped.items())),
            cure="bring the sites back and run the same command again",
            code=ErrorCode.QUORUM,
        )
