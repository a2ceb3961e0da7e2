"""Evaluate a million patients at 20 hospitals: seconds and error of the server, and lifelines'."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.metrics.summaries.refine import refined
from common.metrics.summaries.summary import summarise
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.tables import merge
from common.study.study import Study
from simulations.benchmarks.parts.check import Check, Size, progress
from simulations.benchmarks.parts.command import main

DURATION = "about 1 minute"
SITES, REPEATS = 20, 7


@dataclass(frozen=True)
class PatientsSize(Size):
    """So many patients."""

    patients: int = 1_000_000


FULL, MINIATURE = PatientsSize(seeds=(5,)), PatientsSize(seeds=(5,), patients=5000)


def checks(data: Path, size: PatientsSize) -> Iterator[Check]:
    """Yield the checks; the patients are synthetic."""
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import logrank_test
    from lifelines.utils import concordance_index

    progress(f"{size.patients} synthetic patients at {SITES} hospitals")
    grid, rows = draw_patients(size.patients, size.seeds[0])
    parts = [rows.select(np.arange(size.patients) % SITES == k) for k in range(SITES)]
    grid = refined(grid, merge([tabulate(part, grid, "margins") for part in parts]))
    tables = [tabulate(part, grid) for part in parts]
    total = {"federation": merge(tables)}
    server = np.inf
    for _ in range(REPEATS):
        started = time.perf_counter()
        merge(tables)
        summary = summarise(total, grid)
        server = min(server, time.perf_counter() - started)
    progress(f"server: {server:.2f} s; the same in lifelines:")
    started = time.perf_counter()
    pooled = concordance_index(rows.time_months, -rows.risk, rows.event)
    KaplanMeierFitter().fit(rows.time_months, rows.event)
    high = rows.risk >= np.median(rows.risk)
    logrank_test(
        rows.time_months[high], rows.time_months[~high], rows.event[high], rows.event[~high]
    )
    other = time.perf_counter() - started
    note = f"fastest of {REPEATS}; all metrics with intervals from 200 replicates; "
    note += f"lifelines' C, curve and log-rank: {other:.1f} s"
    what = "64 x 64 bins: seconds at the server"
    yield Check(what, float(server), 0.5, "<", note, full_size=True)
    value = summary.metrics["c_index"].value
    error = None if value is None else float(abs(value - pooled))
    yield Check("|dC| against lifelines", error, 0.002, "<=", full_size=True)
    what = "lifelines' seconds / server's"
    yield Check(what, float(other / server), 1, ">=", note, full_size=True)


def draw_patients(n: int, seed: int) -> tuple[EvaluationGrid, Predictions]:
    """Return synthetic patients with a known hazard, and their grid."""
    study = Study.from_mapping(
        {
            "study_id": "million",
            "endpoints": {"survival": {"edges_months": [0, 12, 24, 36, 60]}},
            "features": {"score": {"modality": "clinical", "dim": 1}},
            "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
            "sites": [{"site_id": "first"}, {"site_id": "second"}],
        },
        where="million patients",
    )
    rng, grid = np.random.default_rng(seed), EvaluationGrid.for_study(study)
    signal = rng.normal(size=n)
    death = rng.exponential(60 * np.exp(-0.6 * signal))
    leaves = rng.uniform(6, 170, n)
    return grid, Predictions.from_logits(
        grid,
        hazard_logits=np.broadcast_to((-1.5 + 0.6 * signal)[:, None], (n, 5)),
        time_months=np.minimum(death, leaves),
        event=(death <= leaves).astype(np.float64),
    )


if __name__ == "__main__":
    main(__file__)
