"""Evaluation at a hospital: held-out patients only, as tables, with noise unless opted out."""

from __future__ import annotations

from client.agent.admission import agreed_release
from client.agent.local_rounds import own_model
from client.agent.open_run import OpenRun
from client.agent.spending import Spending, evaluation_entry
from client.agent.training import check_model_digest
from client.evaluate import predict_all
from common.errors import ErrorCode, ProtocolError
from common.evaluation_request import grid_of, table_noise
from common.metrics.table_schema import TableNoise
from common.metrics.tables import SiteTables
from common.metrics.tabulate import tabulate
from common.models.parameters import load_arrays
from common.privacy.noise import geometric_share
from common.protocol import EvaluateReply, EvaluateRequest
from common.site_policy import SitePolicy


def check_evaluation(run: OpenRun, policy: SitePolicy, request: EvaluateRequest) -> None:
    """Refuse tables looser than study and policy allow, or a model that is not its digest.

    Raises:
        ProtocolError: With code POLICY or PAYLOAD.
    """
    if request.release == "internal" and agreed_release(run.study, policy) == "dp":
        raise ProtocolError(
            "exact tables are asked for, which the study or this hospital does not allow",
            where="site.yaml: allow_internal_evaluation",
            cure="ask for release dp",
            code=ErrorCode.POLICY,
        )
    if request.personal and run.study.training.personal is None:
        raise ProtocolError(
            "the study has no personal models", where=run.run_id, code=ErrorCode.POLICY
        )
    check_model_digest(request.arrays, request.model_digest)


def evaluate_held_out(
    run: OpenRun, request: EvaluateRequest, site_id: str, spending: Spending
) -> EvaluateReply:
    """Return the tables of the held-out patients.

    Release `dp`: two-sided geometric noise on every cell, paid from the partition `held_out`.
    Release `internal`: exact tables, noted in the ledger as a release without guarantee.

    Raises:
        ProtocolError: The model does not fit the study.
        ConfigError: The request's cuts are impossible.
        BudgetError: The ledger refuses.
    """
    grid = grid_of(run.study, request)
    load_arrays(run.model, own_model(run, request.arrays, personal=request.personal))
    noise = table_noise(run.study, request)
    reservation = spending.reserve(evaluation_entry(run, request, noise))
    predictions = predict_all(run.model, run.held_out, grid, run.device)
    tables = _noised(tabulate(predictions, grid, request.phase), noise)
    reply = EvaluateReply(
        site_id=site_id,
        run_id=run.run_id,
        round=request.round,
        model_digest=request.model_digest,
        label=request.label,
        release=request.release,
        phase=request.phase,
        cohort=run.counts if request.release == "internal" else None,
        ledger_head=spending.head,
        epsilon_spent=spending.training_epsilon(run.study),
        evaluation_epsilon_spent=spending.evaluation_epsilon(run.study),
    ).model_copy(update={"arrays": tables.to_arrays()})
    return spending.seal_and_commit(reservation, request, reply)


def _noised(tables: SiteTables, noise: dict[str, TableNoise]) -> SiteTables:
    """Add the whole two-sided geometric noise of every table; cells are never clipped."""
    return SiteTables(
        {
            name: array
            + geometric_share(array.shape, noise[name].epsilon / noise[name].sensitivity, 1)
            if name in noise
            else array
            for name, array in tables.arrays.items()
        }
    )
