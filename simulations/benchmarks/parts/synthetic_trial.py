"""Train one synthetic consortium in the ways that are compared, with held-out patients."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from client.data.split import is_held_out
from common.privacy.plan import EvaluationRelease
from common.study.study import (
    LocalTraining,
    ModelSpec,
    Quorum,
    RosterEntry,
    ServerOptimizer,
    Study,
    TrainingPlan,
)
from simulations.cohorts.cohort import Cohort
from simulations.synthetic.cohort import draw_cohort
from simulations.synthetic.feature_cohort import feature_consortium
from simulations.synthetic.oracle import truth_table
from simulations.synthetic.spec import ConsortiumSpec, demo_spec
from simulations.synthetic.study_template import feature_study
from simulations.trials.memory_training import train_in_memory

FloatArray = npt.NDArray[np.float64]

TEST_FRACTION = 0.25
SPLIT_KEY = b"synthetic trial"
EPSILON = 8.0
MODALITY_FEATURES: dict[str, list[str]] = {
    "pathology": ["tiles"],
    "radiology": ["slices", "radiomics"],
    "genomics": ["pathways"],
    "clinical": ["clinical_table"],
}

HEADS = ModelSpec(name="linear", options={"pooled_norm": 3.0})
FUSED = ModelSpec(name="moemil", options={"size": "small"})
FUSED_PLAN = TrainingPlan(
    rounds=12,
    local=LocalTraining(kind="epochs", epochs=1, batch_size=64, lr=5e-3),
    server=ServerOptimizer(name="average", lr=1.0),
    weight_decay=1e-3,
    test_fraction=0.0,
)
"""Chosen on seeds 101 and 102, which no reported figure uses."""

ArmName = Literal["fused", "alone", "linear", "private", "pathology", "radiology", "genomics",
                  "clinical"]  # fmt: skip
ARMS: tuple[ArmName, ...] = (
    "fused", "alone", "private", "linear", "pathology", "radiology", "genomics", "clinical",
)  # fmt: skip
"""fused: all modalities, federated. alone: the same, every hospital by itself. private: linear
heads in mode local at epsilon 8. linear: the same heads in mode none. The others: the fused model
on one modality, federated."""


@dataclass(frozen=True)
class SyntheticTrial:
    """One drawn consortium.

    Attributes:
        spec: What was drawn.
        train: Training patients of all hospitals.
        test: Held-out patients of all hospitals.
        truth: True and attainable scores of the held-out patients, in their order.
    """

    spec: ConsortiumSpec
    train: Cohort
    test: Cohort
    truth: pd.DataFrame


@dataclass(frozen=True)
class Scores:
    """What an arm says about the held-out patients.

    Attributes:
        response: (n,) probability of response.
        risk: (n,) higher is worse.
    """

    response: FloatArray
    risk: FloatArray


@lru_cache(maxsize=1)
def draw_trial(seed: int, hospitals: int, patients: int) -> SyntheticTrial:
    """Draw a consortium of `hospitals` with `patients` each on average.

    Every patient is held out or not by a keyed hash of the identifier, as hospitals do it.
    """
    spec = demo_spec(patients=patients, sites=hospitals, seed=seed)
    cohort = feature_consortium(spec)
    held_out = np.array([is_held_out(p, SPLIT_KEY, TEST_FRACTION) for p in cohort.patient_ids])
    truth = truth_table([draw_cohort(spec, site) for site in spec.sites], spec.signal)
    tested = np.flatnonzero(held_out)
    return SyntheticTrial(
        spec=spec,
        train=cohort.take(np.flatnonzero(~held_out)),
        test=cohort.take(tested),
        truth=truth.iloc[tested].reset_index(drop=True),
    )


def run_arm(
    trial: SyntheticTrial, arm: ArmName, folder: Path, *, rounds: int | None = None
) -> Scores:
    """Train one arm on the training patients and score the held-out ones.

    Hospitals without any patient of the arm's modalities do not take part in its training.

    Args:
        trial: The consortium.
        arm: What to train.
        folder: For the state of the runs; a killed run continues from there.
        rounds: Of every run; as the arm's plan says by default.
    """
    groups = trial.train.by_hospital()
    if arm != "alone":
        return _train_and_score(trial, arm, groups, trial.test, folder / arm, rounds)
    n = len(trial.test)
    response, risk = np.full(n, np.nan), np.full(n, np.nan)
    for site, own in groups.items():
        here = np.flatnonzero(trial.test.hospital == site)
        tested = trial.test.take(here)
        home = folder / arm / site
        found = _train_and_score(trial, arm, {site: own}, tested, home, rounds)
        response[here], risk[here] = found.response, found.risk
    return Scores(response, risk)


def arm_study(
    spec: ConsortiumSpec,
    arm: ArmName,
    groups: Mapping[str, Cohort],
    rounds: int | None = None,
) -> Study:
    """Return the study of one arm over the hospitals in `groups`.

    Linear heads keep the plan of the study template. Nominal counts are those of the simulated
    training cohort, which is public.
    """
    heads = arm in ("private", "linear")
    features = MODALITY_FEATURES.get(arm)
    base = feature_study(
        spec,
        mode="local" if heads else "none",
        epsilon=EPSILON,
        features=features,
        model=HEADS if heads else FUSED,
    )
    training = base.training if heads else FUSED_PLAN
    nominal = sum(len(group) for group in groups.values())
    update = {"test_fraction": 0.0, "nominal_patients": nominal, "seed": spec.seed}
    update |= {"rounds": rounds or training.rounds}
    privacy = base.privacy.model_copy(
        update={
            "mode": "local" if arm == "private" else "none",
            "evaluation": EvaluationRelease(release="internal"),
        }
    )
    return Study.model_validate(
        base.model_copy(
            update={
                "sites": [RosterEntry(site_id=site) for site in sorted(groups)],
                "quorum": Quorum(min_sites=len(groups)),
                "privacy": privacy,
                "training": training.model_copy(update=update),
                "model": base.model.model_copy(update={"init_seed": spec.seed}),
            }
        )
    )


def _train_and_score(
    trial: SyntheticTrial,
    arm: ArmName,
    groups: Mapping[str, Cohort],
    test: Cohort,
    folder: Path,
    rounds: int | None,
) -> Scores:
    features = arm_study(trial.spec, arm, groups).features
    able = {site: own for site, own in groups.items() if _has_any(own, list(features))}
    study = arm_study(trial.spec, arm, able, rounds)
    predicted = train_in_memory(study, able, folder).predict(test)
    return Scores(predicted.response_prob, predicted.risk)


def _has_any(cohort: Cohort, features: list[str]) -> bool:
    return any(bag is not None for name in features for bag in cohort.features[name])
