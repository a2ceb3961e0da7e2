"""Evaluate at a hospital: held-out patients only, as tables, with noise unless opted out."""

from client.agent.admission import agreed_release
from client.agent.local_rounds import own_model
from client.agent.open_run import OpenRun
from client.agent.release import Release
from client.agent.spending import Spending, evaluation_entry
from client.agent.training import check_model_digest
from client.training.evaluate import predict_all
from common.errors import ErrorCode, ProtocolError
from common.metrics.summaries.paired import tabulate_pair
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.table_schema import TableNoise
from common.metrics.tables.tables import SiteTables
from common.models.base.parameters import load_arrays
from common.privacy.noise import geometric_share
from common.protocol.evaluation_request import grid_of, second_grid_of, split_pair, table_noise
from common.protocol.protocol import EvaluateReply, EvaluateRequest
from common.study.site_policy import SitePolicy
from common.wire import Arrays


def check_evaluation(run: OpenRun, policy: SitePolicy, request: EvaluateRequest) -> None:
    """Refuse tables looser than study and policy allow, or a model that is not its digest.

    Raises:
        ProtocolError: With code POLICY or PAYLOAD.
    """
    if request.release == "internal" and agreed_release(run.study, policy) == "dp":
        raise ProtocolError(
            "exact tables were requested, which the study or this hospital does not allow",
            where="site.yaml: allow_internal_evaluation",
            cure="ask for release dp",
            code=ErrorCode.POLICY,
        )
    if request.personal and run.study.training.personal is None:
        raise ProtocolError(
            "the study has no personal models", where=run.run_id, code=ErrorCode.POLICY
        )
    if request.phase == "paired" and request.release != "internal":
        raise ProtocolError(
            "joint tables of two models can only be sent exactly",
            where=run.run_id,
            code=ErrorCode.POLICY,
        )
    check_model_digest(request.arrays, request.model_digest)


def evaluate_held_out(
    run: OpenRun, request: EvaluateRequest, release: Release, spending: Spending
) -> EvaluateReply:
    """Return the tables of the held-out patients.

    Release `dp`: two-sided geometric noise on every cell, whole or this hospital's share of it,
    paid from the partition `held_out`. Release `internal`: exact tables, noted in the ledger as a
    release without guarantee.

    Raises:
        ProtocolError: The model does not fit the study, or (SECURE_SUM) tables leave through a
            secure sum only and the request names none, or no keys were agreed on.
        ConfigError: The request's cuts are impossible.
        BudgetError: The ledger refuses.
    """
    check_fits(run, request)
    session = release.session(request)  # refuses before anything is spent
    noise = table_noise(run.study, request)
    reservation = spending.reserve(evaluation_entry(run.study, request, noise))
    tables = _noised(held_out_tables(run, request), noise, release.shares)
    reply = EvaluateReply(
        site_id=run.site_id,
        run_id=run.run_id,
        round=request.round,
        model_digest=request.model_digest,
        label=request.label,
        release=request.release,
        phase=request.phase,
        session=session,
        ledger_mark=release.mark(request, spending.position, spending.head),
        cohort=run.counts if session is None and request.release == "internal" else None,
        ledger_head=spending.head,
        epsilon_spent=spending.training_epsilon(run.study),
        evaluation_epsilon_spent=spending.evaluation_epsilon(run.study),
    ).model_copy(update={"arrays": release.tables(request, tables)})
    return spending.seal_and_commit(reservation, request, reply)


def check_fits(run: OpenRun, request: EvaluateRequest) -> None:
    """Refuse cuts or models that do not fit, before anything is spent on them.

    Raises:
        ProtocolError: A model does not fit the study.
        ConfigError: The request's cuts are impossible.
    """
    grid_of(run.study, request)
    second_grid_of(run.study, request)
    models = split_pair(request.arrays) if request.phase == "paired" else (request.arrays,)
    for arrays in models:
        load_arrays(run.model, arrays)


def held_out_tables(run: OpenRun, request: EvaluateRequest) -> SiteTables:
    """Return the exact tables of the held-out patients, before any noise.

    Phase `paired`: of two models on the same patients; the site's personal model, where it is
    asked for, is the second.

    Raises:
        ProtocolError: A model does not fit the study.
        ConfigError: The request's cuts are impossible.
    """
    grid = grid_of(run.study, request)
    if request.phase != "paired":
        predictions = _predict(run, request.arrays, grid, personal=request.personal)
        return tabulate(predictions, grid, request.phase)
    arrays, others = split_pair(request.arrays)
    first = _predict(run, arrays, grid, personal=False)
    second = _predict(run, others, grid, personal=request.personal)
    return tabulate_pair(first, second, grid, second_grid_of(run.study, request))


def _predict(run: OpenRun, arrays: Arrays, grid: EvaluationGrid, *, personal: bool) -> Predictions:
    load_arrays(run.model, own_model(run, arrays, personal=personal))
    return predict_all(run.model, run.held_out, grid, run.device)


def _noised(tables: SiteTables, noise: dict[str, TableNoise], shares: int) -> SiteTables:
    """Add one share of two-sided geometric noise to every table; nothing is clipped."""
    arrays = dict(tables.arrays)
    for name, table in noise.items():
        scale = table.epsilon / table.sensitivity
        arrays[name] = arrays[name] + geometric_share(arrays[name].shape, scale, shares)
    return SiteTables(arrays)
