"""Evaluation in mode distributed: tables are masked, and only the federation total opens."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from common.errors import ErrorCode, ProtocolError, RunError
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import tables_of
from common.metrics.tables.tables import SiteTables
from common.protocol.protocol import EvaluateReply, EvaluateRequest
from common.study.private_round import collusion_of
from common.wire import Arrays
from server.exchange.secure_rounds import SecureRounds, VoidSumError
from server.exchange.validate_reply import check_evaluate_identity
from server.run.round_step import note_absence, note_reply
from server.session.session import RunSession

FEDERATION = "federation"
"""Key under which the total of all sites stands in an evaluation."""


def ask_total(
    session: RunSession,
    sums: SecureRounds,
    requests: Mapping[str, EvaluateRequest],
    grid: EvaluationGrid,
) -> tuple[SiteTables, float, dict[str, str]]:
    """Return the summed tables, how many whole noises they hold, and who is missing.

    Args:
        session: The run.
        sums: Its secure sums.
        requests: Site -> request; all of one label and phase.
        grid: Grid of the request.

    Raises:
        RunError: The sum cannot be opened.
    """
    base = next(iter(requests.values()))
    number = sums.number_of(f"{base.label} {base.phase} {base.round}")
    numbered = {s: r.model_copy(update={"sum_round": number}) for s, r in requests.items()}
    sums.ensure_keys()

    def ask(site_ids: list[str]) -> Mapping[str, Arrays | str | None]:
        asked = [s for s in site_ids if s in numbered]
        replies = session.link.exchange(
            "evaluate",
            {s: numbered[s] for s in asked},
            deadline_s=session.study.quorum.round_timeout_s,
            optional=session.away,
            needed=session.needed_of(asked),
        )
        return {s: _upload(session, sums, s, replies.get(s), numbered[s]) for s in asked}

    sizes = {name: t.shape(grid) for name, t in sorted(tables_of(grid, base.phase).items())}
    try:
        opened, dropped = sums.open_sum(number, sum(map(math.prod, sizes.values())), ask)
    except VoidSumError as void:
        raise RunError(
            f"the tables of model '{base.label}' cannot be opened: {void.why}",
            where=session.state.run_id,
            why=", ".join(f"{site}: {code}" for site, code in sorted(void.dropped.items())),
            cure="bring the sites back and run the same command again: training is not repeated",
            code=ErrorCode.QUORUM,
        ) from None
    tables = SiteTables.from_arrays(_split(opened.total, sizes), grid, base.phase)
    return tables, len(opened.survivors) / collusion_of(session.study).shares, dropped


def _upload(
    session: RunSession,
    sums: SecureRounds,
    site_id: str,
    reply: object,
    request: EvaluateRequest,
) -> Arrays | str | None:
    if reply is None:
        note_absence(session, site_id)
        return None
    session.heard(site_id)
    if not isinstance(reply, EvaluateReply):
        return note_reply(session, site_id, reply)
    try:
        check_evaluate_identity(reply, site_id, request)
    except ProtocolError as error:
        return str(error.code)
    if reply.session != sums.key_session:
        return str(ErrorCode.SECURE_SUM)
    session.record(
        session.state.with_site(
            site_id,
            epsilon_spent=reply.epsilon_spent,
            evaluation_epsilon_spent=reply.evaluation_epsilon_spent,
            ledger_head=reply.ledger_head,
        )
    )
    return reply.arrays


def _split(
    total: np.ndarray[tuple[int, ...], np.dtype[np.int64]], shapes: Mapping[str, tuple[int, ...]]
) -> Arrays:
    arrays: Arrays = {}
    start = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        arrays[name] = total[start : start + size].reshape(shape)
        start += size
    return arrays
