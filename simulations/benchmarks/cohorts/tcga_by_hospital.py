"""Check that federated training reaches the C-index of pooled training on TCGA hospitals.

TCGA lung adenocarcinoma and breast cancer, hospital = tissue source site, survival from slides,
RNA and clinical columns. Every hospital trains on four fifths of its patients, balanced by
outcome; all arms are scored on the same folds. `federated` sums gradients (the product's way),
`pooled` trains where all patients lie in one place, and the floor is a Cox model on age, sex and
stage of all hospitals. `fedavg`, averages of locally trained models, stands beside them: it
drifts where hospitals are small. In breast cancer (about 40 training patients and five deaths a
hospital) ten settings of it ended between .71 and .73, pooled training at .75. The settings of
all arms were chosen on folds drawn with seeds 0 and 1, which are not reported here.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from simulations.benchmarks.parts.check import Check, at_full_size
from simulations.benchmarks.parts.cohort_size import ScenarioSize
from simulations.benchmarks.parts.command import main
from simulations.scenario.scenario import Scenario
from simulations.scenario.scenario_run import ScenarioResult, run_scenario
from simulations.scenario.scenario_study import load_cohort

DURATION = "about 4 minutes on two cores"
NEEDS = ("tcga",)
FULL = ScenarioSize(seeds=(2, 3), scenarios=("tcga_luad", "tcga_brca"))
MINIATURE = ScenarioSize(
    seeds=(2,), partial=True, scenarios=("tcga_luad",), folds=2, rounds=2, workers=1
)
MARGINS = {"federated": 0.02, "fedavg": 0.05}
"""Most C-index an arm may lose against pooled training; fedavg is shown for comparison."""

ARMS = ("pooled", *MARGINS, "clinical_floor")

Rows = dict[str, dict[str, float]]
"""Arm -> column of the comparison -> value."""


def checks(data: Path, size: ScenarioSize) -> Iterator[Check]:
    """Yield the checks.

    Args:
        data: Folder that holds `tcga/`.
        size: Scenarios, folds and seeds.
    """
    for name in size.scenarios:
        scenario = restricted(size.scenario(name))
        with TemporaryDirectory(prefix="tumorboard-") as folder:
            cohort = load_cohort(scenario, data)
            result = run_scenario(scenario, cohort, Path(folder), workers=size.workers)
        yield from at_full_size(comparison_checks(result))


def restricted(scenario: Scenario) -> Scenario:
    """Return the scenario with the arms of this benchmark."""
    arms = [arm for arm in scenario.arms if arm.name in ARMS]
    return scenario.model_copy(update={"arms": arms})


def comparison_checks(result: ScenarioResult) -> Iterator[Check]:
    """Yield each federated arm against pooled, then the floor, from one finished comparison."""
    table = result.table[result.table["metric"] == "c_index"].set_index("arm")
    rows: Rows = {str(arm): dict(row) for arm, row in table.iterrows()}
    patients = sum(result.hospitals.values())
    who = f"{result.scenario.name} ({patients} patients, {len(result.hospitals)} hospitals)"
    floor = _told(rows, "clinical_floor")
    for arm, margin in MARGINS.items():
        lost = -rows[arm]["difference"]
        low, high = -rows[arm]["ci_high"], -rows[arm]["ci_low"]
        yield Check(
            f"{who}: C-index of pooled minus {arm}, same folds",
            lost,
            margin,
            "<=",
            f"pooled {_told(rows, 'pooled')}, {arm} {_told(rows, arm)}, Cox floor {floor}; "
            f"95 % interval of the loss {low:+.3f} to {high:+.3f}",
        )
    yield Check(
        f"{who}: C-index of the Cox floor on clinical columns",
        rows["clinical_floor"]["mean"],
        0.5,
        ">",
        f"floor minus pooled {rows['clinical_floor']['difference']:+.3f}; the bound is chance",
    )


def _told(rows: Rows, arm: str) -> str:
    return f"{rows[arm]['mean']:.3f} (SD of folds {rows[arm]['sd']:.3f})"


if __name__ == "__main__":
    main(__file__)
