"""Simulate a study on a cohort: federated, pooled, each hospital alone, clinical floor."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from common.commands.cli_output import Output
from common.errors import DataError
from common.privacy.plan import EvaluationRelease, PrivacyPlan
from common.study.study import Study, load_study
from simulations.cohorts.cohort import Cohort
from simulations.scenario.scenario import Arm, ArmKind, Folds, GivenSource, Scenario
from simulations.scenario.scenario_run import ScenarioResult, run_scenario

ARMS: tuple[ArmKind, ...] = ("pooled", "federated", "local_only", "clinical_floor")


def simulate(
    cohort: Cohort,
    study: Study | None = None,
    *,
    arms: Sequence[ArmKind | Arm] = ARMS,
    mode: Literal["local", "distributed"] | None = None,
    epsilon: float | Iterable[float] = (),
    folds: int | Folds = 5,
    seeds: int | Sequence[int] = 1,
    folder: Path | str | None = None,
    workers: int | None = 1,
    output: Output | None = None,
) -> ScenarioResult:
    """Train and test every arm on the same folds of a cohort; the first arm is the reference.

    Real agents, server and messages; every hospital lies in memory. Arms named by their kind
    train without privacy; a private study adds one arm with its own plan, each `epsilon` another.

    Args:
        cohort: The patients.
        study: Endpoints, model, training and privacy; `draft_study(cohort)` by default.
        arms: Kinds, or `Arm`s of any model, training plan, privacy plan or circumstances.
        mode: Privacy mode of the `epsilon` arms; the study's by default, else local.
        epsilon: Budgets of training; one private federated arm each, `<mode>_eps<epsilon>`.
        folds: Number of folds inside every hospital, or a `Folds` that holds hospitals out.
        seeds: Number of repeats with other folds and initial weights, or the seeds themselves.
        folder: Where results stay and a killed simulation continues; gone at the end by default.
        workers: Processes; None uses every core. A script that asks for more than one must
            stand under `if __name__ == "__main__":`, a notebook need not.
        output: Where progress is shown; on standard error by default.

    Raises:
        ConfigError: The folder holds the results of another simulation, or the study names a
            model or key that does not exist.
        DataError: The cohort lacks a feature set of the study.

    Example:
        result = simulate(cohort, epsilon=[1, 8], seeds=2)
        result.table
    """
    study = study or draft_study(cohort)
    cohort = replace(cohort.with_features(list(study.features)), specs=dict(study.features))
    arm_list = [arm if isinstance(arm, Arm) else Arm(name=arm, kind=arm) for arm in arms]
    arm_list += _private_arms(study, mode, epsilon)
    scenario = Scenario(
        name=study.study_id,
        title=study.title,
        cohort=GivenSource(sha256=cohort.digest()),
        features=list(study.features),
        endpoints=study.endpoints,
        model=study.model,
        training=study.training,
        folds=Folds(count=folds) if isinstance(folds, int) else folds,
        seeds=list(range(seeds)) if isinstance(seeds, int) else list(seeds),
        reference=arm_list[0].name,
        arms=arm_list,
    )
    with nullcontext(folder) if folder else TemporaryDirectory(prefix="tumorboard-") as place:
        return run_scenario(scenario, cohort, Path(place), workers=workers, output=output)


def _private_arms(
    study: Study, mode: Literal["local", "distributed"] | None, epsilon: float | Iterable[float]
) -> list[Arm]:
    plan, private_mode = study.privacy, mode or "local"
    budgets = [epsilon] if isinstance(epsilon, int | float) else list(epsilon)
    if plan.mode != "none":
        private_mode, budgets = mode or plan.mode, [plan.epsilon, *budgets]
    exact = EvaluationRelease(release="internal")
    return [
        Arm(
            name=f"{private_mode}_eps{budget:g}",
            privacy=PrivacyPlan.model_validate(
                {**plan.model_dump(), "mode": private_mode, "epsilon": budget, "evaluation": exact}
            ),
        )
        for budget in dict.fromkeys(budgets)
    ]


def draft_study(cohort: Cohort, **changes: Any) -> Study:
    """Return a study that trains a linear model over all hospitals of a cohort, without privacy.

    It predicts what the cohort records: response if both classes occur, survival if deaths do.

    Args:
        cohort: Gives hospitals, feature sets and outcomes.
        changes: Any key of `study.yaml`; mappings are merged into the default.

    Raises:
        ConfigError: A key is unknown or wrong.
        DataError: No outcome of the cohort can be learnt.

    Example:
        draft_study(cohort, training={"rounds": 40}, privacy={"mode": "local", "epsilon": 8})
    """
    endpoints: dict[str, Any] = {}
    if len(np.unique(cohort.response[np.isfinite(cohort.response)])) == 2:
        endpoints["response"] = {"positive": "responder"}
    if np.nansum(cohort.event) > 0:
        endpoints["survival"] = {}
    if not endpoints and "endpoints" not in changes:
        raise DataError(
            "no outcome of the cohort varies",
            where=f"cohort {cohort.name}",
            why="nobody died, and there are not both responders and non-responders",
            cure="name the outcome columns, or give `endpoints`",
        )
    keys: dict[str, Any] = {
        "study_id": cohort.name,
        "endpoints": endpoints,
        "features": cohort.specs,
        "model": {"name": "linear"},
        "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
        "quorum": {"min_sites": min(2, len(cohort.hospitals))},
        "sites": [{"site_id": hospital} for hospital in cohort.hospitals],
    }
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(keys.get(name), dict)
        keys[name] = {**keys[name], **value} if both else value
    return load_study(keys)
