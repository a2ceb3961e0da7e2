"""Evaluation across sites: margins, refined cuts, tables; stored so that nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.contract import canonical_json, sha256_hex
from common.errors import ErrorCode, ProtocolError, RunError
from common.metrics.summaries.refine import refined
from common.metrics.summaries.summary import EvaluationSummary, summarise
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import TableNoise
from common.metrics.tables.tables import SiteTables, merge
from common.privacy.plan import Release
from common.protocol.evaluation_request import grid_fields, grid_of, table_noise, two_phases
from common.protocol.protocol import EvaluateReply, EvaluateRequest
from common.storage.atomic_file import write_text
from common.study.study import Study
from common.wire import Arrays, arrays_digest
from server.exchange.enrolment import known_code
from server.exchange.secure_rounds import SecureRounds
from server.exchange.validate_reply import check_evaluate_reply
from server.run.secure_evaluation import FEDERATION, ask_total
from server.session.checkpoint import read_arrays, write_arrays
from server.session.session import RunSession
from server.session.site_link import Refusal

MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Evaluation:
    """Tables of one model.

    Attributes:
        label: Which model, e.g. `federated`.
        grid: Grid on which all sites tabulated.
        tables: Site -> its tables; under a secure sum the one entry `federation`.
        refusals: Site -> code, or `silent`, of those whose tables are missing.
        noise: Noise that a whole table carries at a site; empty for release internal.
        shares: Whole noises in the sum of all tables; None: one a site.
    """

    label: str
    grid: EvaluationGrid
    tables: dict[str, SiteTables]
    refusals: dict[str, str]
    noise: dict[str, TableNoise] = field(default_factory=dict)
    shares: float | None = None

    def summary(self) -> EvaluationSummary:
        """Return metrics, curves and site comparisons."""
        return summarise(self.tables, self.grid, noise=self.noise, shares=self.shares)


def evaluate_model(
    session: RunSession,
    models: Mapping[str, Arrays],
    label: str,
    *,
    round: int = 0,
    sums: SecureRounds | None = None,
    personal: bool = False,
) -> Evaluation:
    """Ask sites for the tables of a model, or return what an earlier call stored.

    Args:
        session: An open run whose sites are enrolled.
        models: Site -> the model it evaluates; one shared mapping for a common model.
        label: Name of the model in the report.
        round: 0 for a final model, else the round it belongs to.
        sums: Secure sums of the run, in mode distributed.
        personal: Every site evaluates its personal model beside the one given.

    Raises:
        RunError: Too few sites send tables in every attempt.
    """
    folder = session.run_dir / "evaluation" / label
    release = agreed_release(session)
    digest = models_digest(models)
    stored = load_evaluation(session.study, folder, digest)
    if stored is not None:
        return stored
    base = EvaluateRequest(
        run_id=session.state.run_id,
        round=round,
        model_digest="",
        label=label,
        release=release,
        personal=personal,
    )
    if two_phases(session.study, release):
        margins = ask_phase(session, models, base.model_copy(update={"phase": "margins"}), sums)
        grid = grid_of(session.study, base)
        fields = grid_fields(refined(grid, merge(list(margins.tables.values()))))
        base = base.model_copy(update={**fields})
    result = ask_phase(session, models, base, sums)
    store_evaluation(folder, base, result, digest)
    return result


def agreed_release(session: RunSession) -> Release:
    """Return `internal` only if the study asks for it and every enrolled site allows it."""
    if session.study.privacy.evaluation.release == "dp":
        return "dp"
    sites = [session.state.sites[site_id] for site_id in session.state.enrolled]
    return "internal" if all(site.release == "internal" for site in sites) else "dp"


def load_evaluation(study: Study, folder: Path, digest: str | None) -> Evaluation | None:
    """Return a stored evaluation, or None if there is none of this model."""
    record = folder / "evaluation.json"
    if not record.is_file():
        return None
    facts = json.loads(record.read_text(encoding="utf-8"))
    if digest is not None and facts["models_digest"] != digest:
        return None
    request = EvaluateRequest.model_validate(facts["request"])
    grid = grid_of(study, request)
    tables = {
        site_id: SiteTables.from_arrays(
            read_arrays(folder / f"{site_id}.safetensors"), grid, request.phase
        )
        for site_id in facts["sites"]
    }
    return Evaluation(
        request.label,
        grid,
        tables,
        facts["refusals"],
        table_noise(study, request),
        facts["shares"],
    )


def store_evaluation(
    folder: Path, request: EvaluateRequest, result: Evaluation, digest: str
) -> None:
    """Write the tables of one model, or of a pair, so that nobody is asked again."""
    for site_id, tables in result.tables.items():
        write_arrays(folder / f"{site_id}.safetensors", tables.to_arrays())
    facts = {
        "models_digest": digest,
        "request": request.model_dump(mode="json"),
        "sites": sorted(result.tables),
        "refusals": result.refusals,
        "shares": result.shares,
    }
    write_text(folder / "evaluation.json", json.dumps(facts, sort_keys=True, indent=1))


def models_digest(models: Mapping[str, Arrays]) -> str:
    """Return the digest of what the sites evaluate: of the one model, or of all."""
    by_identity = {id(arrays): arrays for arrays in models.values()}
    digests = {key: arrays_digest(arrays) for key, arrays in by_identity.items()}
    distinct = {site_id: digests[id(arrays)] for site_id, arrays in models.items()}
    shared = set(distinct.values())
    return shared.pop() if len(shared) == 1 else sha256_hex(canonical_json(distinct))


def ask_phase(
    session: RunSession,
    models: Mapping[str, Arrays],
    base: EvaluateRequest,
    sums: SecureRounds | None,
) -> Evaluation:
    """Return what the enrolled sites that have a model say to one phase of a request.

    Raises:
        RunError: Too few sites send tables in every attempt.
    """
    grid = grid_of(session.study, base)
    noise = table_noise(session.study, base)
    if sums is None:
        tables, refusals = _ask_sites(session, models, base, grid)
        return Evaluation(base.label, grid, tables, refusals, noise)
    requests = _requests(base, {s: models[s] for s in session.state.enrolled if s in models})
    total, shares, dropped = ask_total(session, sums, requests, grid)
    return Evaluation(base.label, grid, {FEDERATION: total}, dropped, noise, shares)


def _ask_sites(
    session: RunSession, models: Mapping[str, Arrays], base: EvaluateRequest, grid: EvaluationGrid
) -> tuple[dict[str, SiteTables], dict[str, str]]:
    """Return each site's tables and who is missing; try again while too few answer."""
    tables: dict[str, SiteTables] = {}
    refusals: dict[str, str] = {}
    for _attempt in range(MAX_ATTEMPTS):
        asked = [s for s in session.state.enrolled if s in models and s not in tables]
        requests = _requests(base, {s: models[s] for s in asked})
        replies = session.link.exchange(
            "evaluate",
            requests,
            deadline_s=session.study.quorum.round_timeout_s,
            optional=session.away,
            needed=session.needed_of(asked),
        )
        for site_id in asked:
            code = _accept(session, requests[site_id], site_id, replies.get(site_id), grid, tables)
            if code is None:
                refusals.pop(site_id, None)
            else:
                refusals[site_id] = code
        if len(tables) >= min(session.study.quorum.min_sites, len(models)):
            return dict(sorted(tables.items())), refusals
    raise RunError(
        f"only {len(tables)} sites sent tables of model '{base.label}'",
        where=session.state.run_id,
        why=", ".join(f"{site}: {code}" for site, code in sorted(refusals.items())),
        cure="bring the sites back and run the same command again: training is not repeated",
        code=ErrorCode.QUORUM,
    )


def _requests(base: EvaluateRequest, models: Mapping[str, Arrays]) -> dict[str, EvaluateRequest]:
    made: dict[int, EvaluateRequest] = {}
    requests = {}
    for site_id, arrays in models.items():
        if id(arrays) not in made:
            changes = {"arrays": arrays, "model_digest": arrays_digest(arrays)}
            made[id(arrays)] = base.model_copy(update=changes)
        requests[site_id] = made[id(arrays)]
    return requests


def _accept(
    session: RunSession,
    request: EvaluateRequest,
    site_id: str,
    reply: object,
    grid: EvaluationGrid,
    tables: dict[str, SiteTables],
) -> str | None:
    if reply is None:
        session.not_heard(site_id)
        return "silent"
    session.heard(site_id)
    if isinstance(reply, Refusal):
        return known_code(reply.code)
    if not isinstance(reply, EvaluateReply):
        return str(ErrorCode.PROTOCOL)
    try:
        check_evaluate_reply(reply, site_id, request)
        tables[site_id] = SiteTables.from_arrays(reply.arrays, grid, request.phase)
    except ProtocolError as error:
        session.output.say(f"evaluation of {request.label}: tables of {site_id} refused\n{error}")
        return str(error.code)
    session.record(
        session.state.with_site(
            site_id,
            cohort=reply.cohort,
            epsilon_spent=reply.epsilon_spent,
            evaluation_epsilon_spent=reply.evaluation_epsilon_spent,
            ledger_head=reply.ledger_head,
        )
    )
    return None
