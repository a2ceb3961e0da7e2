"""TCGA LUAD and BRCA by hospital: federated against pooled on the same folds, Cox floor beside.

Every hospital trains on four fifths of its patients, balanced by outcome; the arms see the same
folds. `federated` sends gradient sums, which pooled training must equal; `fedavg` trains locally
and averages.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from common.cli_output import Output
from simulations.benchmarks.check import Check, progress, run
from simulations.scenario import Scenario, find_scenario
from simulations.scenario_run import ScenarioResult, run_scenario

NAME = "tcga_by_hospital"
DURATION = "about 5 minutes on two idle cores"
SEEDS = (0, 1)
COHORTS = ("tcga_luad", "tcga_brca")
ARMS = ("pooled", "federated", "fedavg", "clinical_floor")
MARGIN = 0.02


def checks(data: Path) -> Iterator[Check]:
    """Yield the checks; `data` is the folder of the real data.

    Raises:
        DataError: The files are missing.
    """
    for name in COHORTS:
        scenario = Scenario.from_yaml(find_scenario(name))
        chosen = scenario.model_copy(
            update={
                "seeds": list(SEEDS),
                "arms": [arm for arm in scenario.arms if arm.name in ARMS],
            }
        )
        with TemporaryDirectory() as folder:
            result = run_scenario(chosen, data, Path(folder), workers=2, output=Output())
        yield from _checks_of(name, result)


def _checks_of(name: str, result: ScenarioResult) -> Iterator[Check]:
    table = result.table[result.table["metric"] == "c_index"]
    means = dict(zip(table["arm"], table["mean"].astype(float), strict=True))
    for arm, mean, sd in zip(table["arm"], table["mean"], table["sd"], strict=True):
        progress(f"{name} {arm}: C {mean:.3f} (SD of folds {sd:.3f})")
    pooled, floor = means["pooled"], means["clinical_floor"]
    for arm in ("federated", "fedavg"):
        mean = means[arm]
        note = f"C {mean:.3f}, pooled {pooled:.3f}, clinical Cox floor {floor:.3f}"
        what = f"{name}, {arm}: C-index below pooled, {len(SEEDS)} x 5 folds"
        yield Check(what, pooled - mean, MARGIN, "<=", note=note)
    what = f"{name}, federated: distance to pooled in C"
    yield Check(what, abs(pooled - means["federated"]), MARGIN, "<=")


if __name__ == "__main__":
    run(NAME, checks, seeds=SEEDS)
