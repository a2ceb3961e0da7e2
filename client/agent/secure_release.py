"""What leaves a hospital in mode distributed: masked integers that only the sum opens."""

from __future__ import annotations

import logging

import numpy as np

from client.agent.evaluation import check_fits, held_out_tables
from client.agent.open_run import OpenRun
from client.agent.secure_sums import SecureSums
from client.agent.spending import Spending, evaluation_entry, private_round_entry
from client.training.private_gradient import clipped_gradient_sum
from common.errors import ErrorCode, ProtocolError
from common.models.base.parameters import load_arrays
from common.privacy.integer_encoding import flatten
from common.privacy.noise import geometric_share
from common.protocol.evaluation_request import table_noise
from common.protocol.protocol import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
from common.study.private_round import collusion_of, encoding_of

_log = logging.getLogger("tumorboard.agent")


def train_masked(
    run: OpenRun, request: TrainRequest, site_id: str, spending: Spending, sums: SecureSums
) -> TrainReply:
    """Return the masked clipped gradient sum with this hospital's share of the noise.

    All parameters are in the vector, those of modalities the hospital lacks with noise alone:
    the noise of a coordinate is whole only if n_min sites carry it.

    Raises:
        ProtocolError: The model does not fit, or no keys were agreed on (SECURE_SUM).
        BudgetError: The ledger refuses.
    """
    load_arrays(run.model, request.arrays)
    encoding = encoding_of(run.study, run.shapes)
    session = sums.session  # refuses before anything is spent
    reservation = spending.reserve(private_round_entry(run.study, request, encoding))
    total = clipped_gradient_sum(
        run.model, run.train, run.study, device=run.device, clip=encoding.clip
    )
    if total.n_nonfinite:
        _log.warning("round %d: %d gradients not finite", request.round, total.n_nonfinite)
    upload = sums.masked(request.round, encoding.noised(flatten(total.arrays)))
    reply = TrainReply(
        site_id=site_id,
        run_id=run.run_id,
        round=request.round,
        model_digest=request.model_digest,
        kind="masked",
        session=session,
        ledger_head=spending.head,
        epsilon_spent=spending.training_epsilon(run.study),
    ).model_copy(update={"arrays": upload})
    return spending.seal_and_commit(reservation, request, reply)


def evaluate_masked(
    run: OpenRun, request: EvaluateRequest, site_id: str, spending: Spending, sums: SecureSums
) -> EvaluateReply:
    """Return the masked tables of the held-out patients; only the federation total opens.

    Release `dp` adds this hospital's share of two-sided geometric noise to every cell.

    Raises:
        ProtocolError: The request names no secure sum, or no keys were agreed on (SECURE_SUM).
        BudgetError: The ledger refuses.
    """
    if request.sum_round is None or request.sum_round <= run.study.training.rounds:
        raise ProtocolError(
            "tables leave this study through the secure sum only",
            where=run.run_id,
            code=ErrorCode.SECURE_SUM,
        )
    check_fits(run, request)
    noise = table_noise(run.study, request)
    session = sums.session
    reservation = spending.reserve(evaluation_entry(run, request, noise))
    tables = held_out_tables(run, request).arrays
    shares = collusion_of(run.study).shares
    parts = [
        tables[name]
        if name not in noise
        else tables[name]
        + geometric_share(tables[name].shape, noise[name].epsilon / noise[name].sensitivity, shares)
        for name in sorted(tables)
    ]
    vector = np.concatenate([part.reshape(-1) for part in parts]).astype(np.int64)
    reply = EvaluateReply(
        site_id=site_id,
        run_id=run.run_id,
        round=request.round,
        model_digest=request.model_digest,
        label=request.label,
        release=request.release,
        phase=request.phase,
        session=session,
        ledger_head=spending.head,
        epsilon_spent=spending.training_epsilon(run.study),
        evaluation_epsilon_spent=spending.evaluation_epsilon(run.study),
    ).model_copy(update={"arrays": sums.masked(request.sum_round, vector)})
    return spending.seal_and_commit(reservation, request, reply)
