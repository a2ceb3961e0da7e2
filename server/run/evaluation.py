"""Evaluate across sites: request tables, compute metrics from them, and store both."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.contract import canonical_json, sha256_hex
from common.metrics.summaries.refine import refined
from common.metrics.summaries.summary import EvaluationSummary, summarise
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import TableNoise
from common.metrics.tables.tables import SiteTables, merge
from common.protocol.evaluation_request import (
    grid_fields,
    grid_of,
    paired_label,
    planned_evaluation,
    table_noise,
)
from common.protocol.protocol import EvaluateRequest
from common.storage.atomic_file import write_text
from common.study.study import Study
from server.exchange.exchange import Collected
from server.session.checkpoint import read_arrays, write_arrays
from server.session.session import RunSession


@dataclass(frozen=True)
class Evaluation:
    """Tables of one model.

    Attributes:
        label: Which model, e.g. `federated`.
        grid: Grid on which all sites tabulated.
        tables: Site -> its tables; under a secure sum the one entry `federation`.
        refusals: Site -> code, or `silent`, of those whose tables are missing.
        noise: Noise that a whole table carries at a site; empty for release internal.
        shares: Whole noises in the sum of all tables; None: one per site.
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


def first_request(session: RunSession, label: str, *, personal: bool = False) -> EvaluateRequest:
    """Return what is asked first about a model: margins, or the tables if there is one phase.

    Args:
        session: The run; all enrolled sites must allow exact tables for them to be requested.
        label: Name of the model in the report.
        personal: Every site evaluates its personal model beside the one given.
    """
    request = planned_evaluation(session.study, session.state.run_id, session.release)[0]
    return request.model_copy(update={"label": label, "personal": personal})


def refined_request(study: Study, margins: Evaluation, request: EvaluateRequest) -> EvaluateRequest:
    """Return the request for tables on the grid that the margins suggest."""
    grid = refined(grid_of(study, request), merge(list(margins.tables.values())))
    return request.model_copy(update={**grid_fields(grid), "phase": "tables"})


def paired_request(session: RunSession, shared: Evaluation, own: Evaluation) -> EvaluateRequest:
    """Return what is asked about shared and personal models on the same patients: joint tables."""
    return EvaluateRequest(
        run_id=session.state.run_id,
        round=0,
        model_digest="",
        label=paired_label(shared.label, own.label),
        release="internal",
        phase="paired",
        personal=True,
        second_cuts=grid_fields(own.grid)["score_cuts"],
    ).model_copy(update={**grid_fields(shared.grid)})


def evaluation_of(study: Study, request: EvaluateRequest, replies: Collected) -> Evaluation:
    """Return the tables that sites contributed to one phase of a request.

    Raises:
        ProtocolError: A sum of tables does not fit the grid.
    """
    grid = grid_of(study, request)
    tables = {
        entry.site_id: SiteTables.from_arrays(entry.arrays, grid, request.phase)
        for entry in replies.contributions
    }
    noise = table_noise(study, request)
    return Evaluation(request.label, grid, tables, replies.dropped, noise, replies.shares)


def digest_of_models(digests: Mapping[str, str]) -> str:
    """Return the digest of what the sites evaluate: of the one model, or of all, by site."""
    distinct = set(digests.values())
    return distinct.pop() if len(distinct) == 1 else sha256_hex(canonical_json(dict(digests)))


def load_evaluation(study: Study, folder: Path, digest: str) -> Evaluation | None:
    """Return a stored evaluation, or None if there is none of the model with this digest."""
    record = folder / "evaluation.json"
    if not record.is_file():
        return None
    facts = json.loads(record.read_text(encoding="utf-8"))
    if facts["models_digest"] != digest:
        return None
    request = EvaluateRequest.model_validate(facts["request"])
    grid = grid_of(study, request)
    tables = {
        site_id: SiteTables.from_arrays(
            read_arrays(folder / f"{site_id}.safetensors"), grid, request.phase
        )
        for site_id in facts["sites"]
    }
    noise = table_noise(study, request)
    return Evaluation(request.label, grid, tables, facts["refusals"], noise, facts["shares"])


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
