"""Measure the cost of privacy on Fed-TCGA-BRCA: C-index by mode and budget, beside pooled training.

1,088 patients of six regions, 39 clinical columns, discrete-time linear head, five folds balanced
inside every region, five seeds. The plan is the product's default: 100 rounds of one full-batch
step, clip 0.3, server Adam, mean of the last half of iterates; edges and baseline hazards are
public. Noise is drawn again in every run, so figures move in the third digit from run to run.
Every private figure is the mean over several draws a fold. `distributed` is shown with the
product's default n_min (one region in five may be lost) and with all regions needed.
"""

from collections.abc import Iterator
from pathlib import Path

from simulations.arms.private_arms import (
    EPSILONS,
    PrivacyComparison,
    PrivateArm,
    compare_private_arms,
)
from simulations.benchmarks.parts.check import Check, at_full_size, progress
from simulations.benchmarks.parts.cohort_size import ScenarioSize
from simulations.benchmarks.parts.command import main
from simulations.scenario.scenario_study import load_cohort

DURATION = "about 4 minutes on two cores"
NEEDS = ("multicentre_survival",)
CLIP = 0.3
REGIONS = 6
METRIC = "c_index"
REFERENCE = PrivateArm("together")

DESIGN = {
    "together-none": 0.750,
    "alone-none": 0.654,
    "distributed-1": 0.715,
    "distributed-3": 0.744,
    "distributed-8": 0.751,
    "local-1": 0.675,
    "local-3": 0.722,
    "local-8": 0.744,
    "alone-1": 0.574,
    "alone-3": 0.619,
    "alone-8": 0.653,
}
"""Figures of the mechanism's design study on these patients, with all regions needed; those of
`alone` and of training together are from five other splits and another optimiser."""

BOUNDS = {("distributed", 3.0): 0.02, ("distributed", 8.0): 0.01, ("local", 8.0): 0.02}
"""Most C-index that a mode may lose against training together without privacy."""


FULL = ScenarioSize(seeds=(0, 1, 2, 3, 4), draws=4)
MINIATURE = ScenarioSize(seeds=(0,), folds=2, rounds=2, workers=1)


def arms(draws: int = FULL.draws) -> list[PrivateArm]:
    """Return every arm that is compared."""
    found = [REFERENCE, PrivateArm("alone")]
    for epsilon in EPSILONS:
        found += [
            PrivateArm("distributed", epsilon, draws=draws),
            PrivateArm("distributed", epsilon, n_min=REGIONS, draws=draws),
            PrivateArm("local", epsilon, draws=draws),
            PrivateArm("alone", epsilon, draws=draws),
        ]
    return found


def checks(data: Path, size: ScenarioSize) -> Iterator[Check]:
    """Yield the checks.

    Args:
        data: Folder that holds `multicentre_survival/`.
        size: Folds, seeds and draws of noise.
    """
    scenario = size.scenario("fed_tcga_brca")
    cohort = load_cohort(scenario, data)
    progress(f"{len(cohort)} patients, {len(size.seeds)} seeds, {scenario.folds.count} folds")
    found = compare_private_arms(
        scenario, cohort, arms(size.draws), clip=CLIP, workers=size.workers
    )
    progress(f"C-index, mean over folds and seeds\n{found.table(METRIC)}")
    yield from at_full_size(comparison_checks(found))


def comparison_checks(found: PrivacyComparison) -> Iterator[Check]:
    """Yield every arm beside the design's figure, then what must hold."""
    for (mode, epsilon), bound in BOUNDS.items():
        for arm in (one for one in arms() if (one.mode, one.epsilon) == (mode, epsilon)):
            yield _loss(found, arm.name, bound)
    names = list(dict.fromkeys(found.cells["arm"]))
    for name in names:
        design = DESIGN.get(name.replace(f"-n{REGIONS}", ""))
        beside = "" if design is None else f"; the design study had {design:.3f}"
        note = f"SD over seeds {found.seed_sd(name, METRIC):.3f}{beside}; the bound is chance"
        yield Check(f"C-index of {name}", found.mean(name, METRIC), 0.5, ">", note)
    yield _gain(found, "distributed-3", "local-3")
    yield _gain(found, "local-3", "alone-3")


def _loss(found: PrivacyComparison, arm: str, bound: float) -> Check:
    paired = found.difference(arm, REFERENCE.name, METRIC)
    return Check(
        f"C-index lost by {arm} against training together without privacy",
        -paired.mean,
        bound,
        "<=",
        f"{found.mean(REFERENCE.name, METRIC):.3f} to {found.mean(arm, METRIC):.3f}; "
        f"95 % interval of the loss {-paired.ci_high:+.3f} to {-paired.ci_low:+.3f}",
    )


def _gain(found: PrivacyComparison, arm: str, other: str) -> Check:
    paired = found.difference(arm, other, METRIC)
    note = f"95 % interval {paired.ci_low:+.3f} to {paired.ci_high:+.3f}"
    return Check(f"C-index of {arm} above {other}, same folds", paired.mean, 0.0, ">", note)


if __name__ == "__main__":
    main(__file__)
