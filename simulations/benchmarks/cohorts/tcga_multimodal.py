"""Measure where several modalities help on real hospitals, with paired intervals.

TCGA lung, breast and stomach cancer by hospital: survival for all, response for lung and stomach.
Five seeds of five folds, each balanced by outcome inside every hospital; all arms on the same
folds, settings as in the scenarios of the same name. The table holds every arm against the
federated multimodal model: each modality alone, the Cox and logistic floor on age, sex and
stage, each hospital alone, hospitals that never took part in training, patients or half of the
hospitals without a modality. Intervals are corrected for overlapping training sets (Nadeau and
Bengio, 2003), p-values by Holm's method over the arms of one endpoint.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common.metrics.catalogue import headlines
from simulations.arms.multimodal_arms import arms_of_less, score_seed
from simulations.benchmarks.parts.check import Check, at_full_size, progress
from simulations.benchmarks.parts.cohort_size import ScenarioSize
from simulations.benchmarks.parts.command import main
from simulations.comparison.arm_metrics import WITHIN
from simulations.comparison.comparison import cell_metrics, compare_arms
from simulations.engines.worker_process import over_cores
from simulations.scenario.scenario_study import load_cohort

DURATION = "about 4 minutes on two idle cores"
NEEDS = ("tcga",)
FULL = ScenarioSize(seeds=(0, 1, 2, 3, 4), scenarios=("tcga_luad", "tcga_brca", "tcga_stad"))
MINIATURE = ScenarioSize(
    seeds=(0,), partial=True, scenarios=("tcga_luad",), folds=2, rounds=2, workers=1
)
REFERENCE = "federated"
MARGIN = 0.01
SIGNIFICANT = 0.05

Rows = dict[str, dict[str, Any]]
"""Arm -> column of the comparison -> value."""


@dataclass(frozen=True)
class Verdict:
    """The federated multimodal model against one that uses less.

    Attributes:
        gain: Mean gain of the multimodal model over folds and seeds.
        low: Lower end of its corrected 95 % interval.
        high: Upper end.
        p_holm: Adjusted p-value.
    """

    gain: float
    low: float
    high: float
    p_holm: float

    @property
    def words(self) -> str:
        """What can be said plainly."""
        if self.p_holm >= SIGNIFICANT:
            return "no difference shown"
        return "helps" if self.gain > 0 else "harms"

    def __str__(self) -> str:
        """Return gain, interval and words in one line."""
        return f"{self.gain:+.3f} ({self.low:+.3f} to {self.high:+.3f}), {self.words}"


def checks(data: Path, size: ScenarioSize) -> Iterator[Check]:
    """Yield the checks.

    Args:
        data: Folder that holds `tcga/`.
        size: Scenarios, folds and seeds.
    """
    for name, predictions in _predictions(data, size):
        cells = cell_metrics(predictions)
        folds = int(cells["fold"].nunique())
        table = compare_arms(cells, REFERENCE, test_share=1 / (folds - 1))
        patients = int(predictions["patient_id"].nunique())
        hospitals = int(predictions["hospital"].nunique())
        for metric in (headline.name for headline in headlines()):
            rows, within = _rows(table, metric), _rows(table, metric + WITHIN)
            if rows:
                who = f"{name}, {metric} ({patients} patients, {hospitals} hospitals)"
                show(who, rows)
                less = arms_of_less(size.scenario(name))
                yield from at_full_size(endpoint_checks(who, rows, within, less))


def endpoint_checks(who: str, rows: Rows, within: Rows, less: Sequence[str]) -> Iterator[Check]:
    """Yield the checks of one cohort and endpoint.

    Args:
        who: Cohort and endpoint.
        rows: Comparison over all pairs of test patients.
        within: The same over pairs inside a hospital, for arms whose hospitals have models of
            their own.
        less: Arms whose models read fewer modalities.
    """
    federated = rows[REFERENCE]["mean"]
    pooled = verdict_against(rows, "pooled")
    note = f"pooled {rows['pooled']['mean']:.3f}, federated {federated:.3f}, "
    note += f"gain {pooled}; local epochs (FedAvg) {rows['fedavg']['mean']:.3f}"
    yield Check(f"{who}: pooled minus federated", -pooled.gain, MARGIN, "<=", note)
    alone = verdict_against(within, "local_only")
    note = f"inside hospitals: federated {within[REFERENCE]['mean']:.3f}, "
    note += f"alone {within['local_only']['mean']:.3f}, gain {alone}"
    yield Check(f"{who}: federated minus each hospital alone", alone.gain, -MARGIN, ">=", note)
    unseen = within["leave_one_out"]["mean"]
    note = f"inside hospitals; {within[REFERENCE]['mean']:.3f} where the hospital takes part"
    yield Check(f"{who}: hospitals that took no part in training", unseen, 0.5, ">", note)
    lines = {arm: verdict_against(rows, arm) for arm in less}
    verdicts = "; ".join(f"{arm} {verdict}" for arm, verdict in lines.items())
    what = f"{who}: models of fewer modalities with a plain verdict on the multimodal one"
    finite = [v for v in lines.values() if v.low <= v.gain <= v.high]
    yield Check(what, len(finite), len(lines), "==", f"{summary(lines)}. {verdicts}")


def summary(lines: dict[str, Verdict]) -> str:
    """Return which models the multimodal one beats, equals as far as shown, or falls behind."""
    parts = []
    for words in ("helps", "no difference shown", "harms"):
        arms = [arm for arm, verdict in lines.items() if verdict.words == words]
        parts.append(f"{words}: {', '.join(arms) or 'none'}")
    return "multimodal " + "; ".join(parts)


def verdict_against(rows: Rows, arm: str) -> Verdict:
    """Return what the multimodal federated model gains over another arm."""
    row = rows[arm]
    return Verdict(-row["difference"], -row["ci_high"], -row["ci_low"], row["p_holm"])


def show(who: str, rows: Rows) -> None:
    """Write the table of one cohort and endpoint to standard error."""
    progress(f"\n{who}: several modalities, federated: {rows[REFERENCE]['mean']:.3f}")
    progress(f"  {'arm':18s} {'mean':>6s}  gain of the federated multimodal model")
    for arm, row in sorted(rows.items(), key=lambda item: -item[1]["mean"]):
        if arm != REFERENCE:
            progress(f"  {arm:18s} {row['mean']:6.3f}  {verdict_against(rows, arm)}")


def _rows(table: pd.DataFrame, metric: str) -> Rows:
    part = table[table["metric"] == metric].set_index("arm")
    return {str(arm): dict(row) for arm, row in part.iterrows()}


def _predictions(data: Path, size: ScenarioSize) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (scenario, predictions of all seeds); seeds run over the cores."""
    for name in size.scenarios:
        scenario, found = size.scenario(name), []
        shared = (scenario, load_cohort(scenario, data))
        jobs = [(seed,) for seed in size.seeds]
        for _, predictions in over_cores(score_seed, jobs, shared=shared, workers=size.workers):
            found.append(predictions)
            progress(f"{name}: {len(found)} of {len(jobs)} seeds")
        yield name, pd.concat(found, ignore_index=True)


if __name__ == "__main__":
    main(__file__)
