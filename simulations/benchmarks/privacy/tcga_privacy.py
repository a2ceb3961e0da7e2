"""Measure the cost of privacy for a multimodal model on TCGA hospitals, with and without a trunk.

Slides, RNA and clinical columns of lung and stomach cancer (survival and response) and breast
cancer (survival), hospital = tissue source site, five folds balanced inside every hospital, five
seeds, the product's default plan. `raw`: linear heads on eight public principal components of
each modality. `trunk`: linear heads on public scores, fitted on the other TCGA cohorts alone,
and the clinical columns. The floor is a Cox or logistic model on age, sex and stage of all
hospitals without privacy. A fourth cohort, papillary kidney cancer, is shown because there the
molecular data clearly add to the floor; in the other three they hardly do.
"""

from __future__ import annotations

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
from simulations.benchmarks.parts.check import Check, progress, run
from simulations.scenario.scenario import Arm, Scenario, TcgaSource, load_scenario
from simulations.scenario.scenario_study import load_cohort

NAME = "tcga_privacy"
DURATION = "about 15 minutes on two cores"
SEEDS = (0, 1, 2, 3, 4)
SCENARIOS = ("tcga_luad", "tcga_brca", "tcga_stad", "tcga_kirp")
CLIP = 0.3
KEPT = 0.9
"""Share of the gain over the clinical floor that a private model must keep at epsilon 3."""

LEAST_GAIN = 0.02
"""A smaller gain over the floor is not one: half the interval of the difference is larger."""

MOST_LOST = 0.03
REFERENCE = PrivateArm("together").name
PRIVATE = PrivateArm("distributed", 3.0).name
LABELS = {metric.name: metric.short for metric in headlines()}

Variants = Mapping[str, PrivacyComparison]
"""`raw` and `trunk` -> scores of all arms on the same folds."""


def arms() -> list[PrivateArm]:
    """Return all of {none, 8, 3, 1} x {together or distributed, local, alone}."""
    found = [PrivateArm("together"), PrivateArm("alone")]
    for epsilon in EPSILONS:
        found += [PrivateArm(mode, epsilon) for mode in ("distributed", "local", "alone")]
    return found


def checks(data: Path) -> Iterator[Check]:
    """Yield the checks.

    Args:
        data: Folder that holds `tcga/`.
    """
    for name in SCENARIOS:
        scenario = load_scenario(name)
        found = {}
        for variant, features in feature_sets(scenario).items():
            chosen = with_features(scenario, features)
            cohort = load_cohort(chosen, data)
            progress(f"{name}, {variant}: {len(cohort)} patients, {', '.join(features)}")
            found[variant] = compare_private_arms(chosen, cohort, arms(), clip=CLIP)
        for metric in LABELS:
            if found["raw"].wide(metric)[REFERENCE].notna().any():
                progress(table(f"{name}, {LABELS[metric]}", found, metric))
                yield from metric_checks(name, found, metric)


def feature_sets(scenario: Scenario) -> dict[str, list[str]]:
    """Return the feature sets of both variants."""
    scores = [f"{name}_trunk" for name in scenario.features]
    return {"raw": scenario.features, "trunk": [*scores, "clinical"]}


def with_features(scenario: Scenario, features: list[str]) -> Scenario:
    """Return the scenario over these feature sets, with the product's default plan."""
    if not isinstance(scenario.cohort, TcgaSource):
        raise TypeError("the scenario is not one of TCGA")
    changes = {
        "cohort": scenario.cohort.model_copy(update={"trunk": True}),
        "features": features,
        "training": TrainingPlan(),
        "seeds": list(SEEDS),
        "arms": [Arm(name="all", features=features)],
    }
    return scenario.model_copy(update=changes)


def table(title: str, found: Variants, metric: str) -> str:
    """Return the figures of both variants beside each other, one line an arm."""
    lines = [f"{title}, mean over folds and seeds (SD over seeds): raw, trunk"]
    for arm in dict.fromkeys(found["raw"].cells["arm"]):
        told = [f"{one.mean(arm, metric):.3f} ({one.seed_sd(arm, metric):.3f})" for one in
                (found["raw"], found["trunk"])]  # fmt: skip
        lines.append(f"  {arm:<16} {'  '.join(told)}")
    return "\n".join(lines)


def metric_checks(name: str, found: Variants, metric: str) -> Iterator[Check]:
    """Yield what must hold, then every figure of both variants."""
    trunk, raw = found["trunk"], found["raw"]
    yield _gain_kept(f"{name}: {LABELS[metric]}", trunk, metric)
    lost = trunk.difference(PRIVATE, REFERENCE, metric)
    yield Check(
        f"{name}: {LABELS[metric]} lost by the trunk at epsilon 3, distributed",
        -lost.mean,
        MOST_LOST,
        "<=",
        f"95 % interval {-lost.ci_high:+.3f} to {-lost.ci_low:+.3f}; raw features lose "
        f"{-raw.difference(PRIVATE, REFERENCE, metric).mean:.3f}",
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
            yield Check(
                f"{name}, {variant}: {LABELS[metric]} of {arm}",
                comparison.mean(arm, metric),
                0.0,
                ">",
                f"SD over seeds {comparison.seed_sd(arm, metric):.3f}",
            )


def _gain_kept(what: str, trunk: PrivacyComparison, metric: str) -> Check:
    """Return the share kept where there is a gain; else that there is none to keep."""
    gain = trunk.difference(REFERENCE, FLOOR, metric)
    private = trunk.difference(PRIVATE, FLOOR, metric)
    told = (
        f"above the floor without privacy {gain.mean:+.3f} "
        f"({gain.ci_low:+.3f} to {gain.ci_high:+.3f}), at epsilon 3 {private.mean:+.3f} "
        f"({private.ci_low:+.3f} to {private.ci_high:+.3f})"
    )
    if gain.mean >= LEAST_GAIN:
        return Check(
            f"{what}: share of the trunk's gain over the clinical floor kept at epsilon 3",
            private.mean / gain.mean,
            KEPT,
            ">=",
            told,
        )
    return Check(
        f"{what}: the trunk without privacy is less than {LEAST_GAIN:g} above the clinical floor, "
        "so there is no gain to keep; at epsilon 3 it lies below the floor by",
        -private.mean,
        MOST_LOST,
        "<=",
        told,
    )


if __name__ == "__main__":
    run(NAME, checks, seeds=SEEDS)
