"""Measure the cost of privacy for a multimodal model on TCGA hospitals, with and without a trunk.

Slides, RNA and clinical columns of lung and stomach cancer (survival and response) and breast
cancer (survival), hospital = tissue source site, five folds balanced inside every hospital, five
seeds, the product's default plan. `raw`: linear heads on eight public principal components of
each modality. `trunk`: linear heads on public scores, fitted on the other TCGA cohorts alone,
and the clinical columns. The floor is a Cox or logistic model on age, sex and stage of all
hospitals without privacy. A fourth cohort, papillary kidney cancer, is shown because there the
molecular data clearly add to the floor; in the other three they hardly do.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from common.metrics.catalogue import headlines
from common.study.study import TrainingPlan
from simulations.arms.private_arms import (
    EPSILONS,
    FLOOR,
    PrivacyComparison,
    PrivateArm,
    compare_private_arms,
)
from simulations.benchmarks.parts.check import Check, at_full_size, progress
from simulations.benchmarks.parts.cohort_size import ScenarioSize
from simulations.benchmarks.parts.command import main
from simulations.scenario.scenario import Arm, Scenario, TcgaSource
from simulations.scenario.scenario_study import load_cohort

DURATION = "about 15 minutes on two cores"
NEEDS = ("tcga",)
CLIP = 0.3
KEPT = 0.9
"""Share of the gain over the clinical floor that a private model must keep at epsilon 3."""

LEAST_GAIN = 0.02
"""A smaller gain over the floor is not one: half the interval of the difference is larger."""

MOST_LOST = 0.03
REFERENCE = PrivateArm("together")
PRIVATE = PrivateArm("distributed", 3.0).name
LABELS = {metric.name: metric.short for metric in headlines()}

Variants = Mapping[str, PrivacyComparison]
"""`raw` and `trunk` -> scores of all arms on the same folds."""


FULL = ScenarioSize(
    seeds=(0, 1, 2, 3, 4), draws=2, scenarios=("tcga_luad", "tcga_brca", "tcga_stad", "tcga_kirp")
)
MINIATURE = ScenarioSize(
    seeds=(0,), partial=True, scenarios=("tcga_luad",), folds=2, rounds=2, workers=1
)


def arms(draws: int = FULL.draws) -> list[PrivateArm]:
    """Return all of {none, 8, 3, 1} x {together or distributed, local, alone}."""
    found = [REFERENCE, PrivateArm("alone")]
    for epsilon in EPSILONS:
        found += [PrivateArm(mode, epsilon, draws=draws) for mode in ("distributed", "local")]
        found.append(PrivateArm("alone", epsilon))
    return found


def checks(data: Path, size: ScenarioSize) -> Iterator[Check]:
    """Yield the checks.

    Args:
        data: Folder that holds `tcga/`.
        size: Scenarios, folds, seeds and draws of noise.
    """
    for name in size.scenarios:
        scenario = size.scenario(name)
        found = {}
        for variant, features in feature_sets(scenario).items():
            chosen = with_features(scenario, features, size.plan(TrainingPlan()))
            cohort = load_cohort(chosen, data)
            progress(f"{name}, {variant}: {len(cohort)} patients, {', '.join(features)}")
            found[variant] = compare_private_arms(
                chosen, cohort, arms(size.draws), clip=CLIP, workers=size.workers
            )
        for metric in LABELS:
            if found["raw"].wide(metric)[REFERENCE.name].notna().any():
                for variant, comparison in found.items():
                    title = f"{name}, {variant}: {LABELS[metric]}, mean over folds and seeds"
                    progress(f"{title}\n{comparison.table(metric)}")
                yield from at_full_size(metric_checks(name, found, metric))


def feature_sets(scenario: Scenario) -> dict[str, list[str]]:
    """Return the feature sets of both variants."""
    scores = [f"{name}_trunk" for name in scenario.features]
    return {"raw": scenario.features, "trunk": [*scores, "clinical"]}


def with_features(scenario: Scenario, features: list[str], plan: TrainingPlan) -> Scenario:
    """Return the scenario over these feature sets, trained by this plan."""
    if not isinstance(scenario.cohort, TcgaSource):
        raise TypeError("the scenario is not one of TCGA")
    changes = {
        "cohort": scenario.cohort.model_copy(update={"trunk": True}),
        "features": features,
        "training": plan,
        "arms": [Arm(name="all", features=features)],
    }
    return scenario.model_copy(update=changes)


def metric_checks(name: str, found: Variants, metric: str) -> Iterator[Check]:
    """Yield what must hold, then every figure of both variants."""
    trunk, raw = found["trunk"], found["raw"]
    yield _gain_kept(f"{name}: {LABELS[metric]}", trunk, metric)
    lost = trunk.difference(PRIVATE, REFERENCE.name, metric)
    yield Check(
        f"{name}: {LABELS[metric]} lost by the trunk at epsilon 3, distributed",
        -lost.mean,
        MOST_LOST,
        "<=",
        f"95 % interval {-lost.ci_high:+.3f} to {-lost.ci_low:+.3f}; raw features lose "
        f"{-raw.difference(PRIVATE, REFERENCE.name, metric).mean:.3f}",
    )
    yield Check(
        f"{name}: {LABELS[metric]} at epsilon 3, distributed: trunk above raw features",
        trunk.mean(PRIVATE, metric) - raw.mean(PRIVATE, metric),
        0.0,
        ">",
        f"trunk {trunk.mean(PRIVATE, metric):.3f}, raw {raw.mean(PRIVATE, metric):.3f}, "
        f"floor {trunk.mean(FLOOR, metric):.3f}",
    )
    for variant, comparison in found.items():
        for arm in dict.fromkeys(comparison.cells["arm"]):
            what = f"{name}, {variant}: {LABELS[metric]} of {arm}"
            note = f"SD over seeds {comparison.seed_sd(arm, metric):.3f}"
            yield Check(what, comparison.mean(arm, metric), 0.0, ">", note)


def _gain_kept(what: str, trunk: PrivacyComparison, metric: str) -> Check:
    """Return the share kept where there is a gain; else what is lost where there is none."""
    gain = trunk.difference(REFERENCE.name, FLOOR, metric)
    private = trunk.difference(PRIVATE, FLOOR, metric)
    what += ": share of the trunk's gain over the clinical floor kept at epsilon 3"
    what += f"; without a gain of {LEAST_GAIN:g}, how far it lies below the floor"
    note = (
        f"above the floor without privacy {gain.mean:+.3f} "
        f"({gain.ci_low:+.3f} to {gain.ci_high:+.3f}), at epsilon 3 {private.mean:+.3f} "
        f"({private.ci_low:+.3f} to {private.ci_high:+.3f})"
    )
    if gain.mean >= LEAST_GAIN:
        return Check(what, private.mean / gain.mean, KEPT, ">=", note)
    return Check(what, -private.mean, MOST_LOST, "<=", f"no gain to keep; {note}")


if __name__ == "__main__":
    main(__file__)
