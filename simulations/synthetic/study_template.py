"""Write the study of the synthetic consortium, as its coordinator would write it."""

from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from common.errors import ConfigError
from common.privacy.plan import EvaluationRelease, Mode, PrivacyPlan
from common.study.study import (
    Endpoints,
    FeatureSpec,
    LocalTraining,
    ModelSpec,
    Quorum,
    ResponseEndpoint,
    RosterEntry,
    ServerOptimizer,
    Study,
    SurvivalEndpoint,
    TrainingPlan,
)
from common.study.subgroups import Subgroup
from simulations.synthetic.clinical_record import SEXES
from simulations.synthetic.feature_cohort import FeatureShape, drawn_feature_sets
from simulations.synthetic.feature_sets import raw_feature_sets
from simulations.synthetic.public_reference import (
    public_hazards,
    public_prevalence,
    reference_scaling,
)
from simulations.synthetic.spec import ConsortiumSpec

EDGES_MONTHS = [0.0, 12.0, 24.0, 36.0, 60.0]
HORIZONS_MONTHS = [12.0, 36.0, 60.0]
EPSILON = 8.0
TEST_FRACTION = 0.25

_GAIN = {"slices": 0.2, "clinical_text": 0.2}
"""Slice and sentence embeddings vary mostly in what says little here; public draws show it."""
_FUSED = ModelSpec(name="moemil", options={"size": "small"})

SUBGROUPS = {
    "sex": Subgroup(column="clinical_sex", levels={sex: [sex] for sex in SEXES}),
    "age": Subgroup(column="clinical_age", bands=[50, 65]),
    "stage": Subgroup(
        column="clinical_stage", levels={"I or II": ["I", "II"], "III or IV": ["III", "IV"]}
    ),
}

TITLE = "Synthetic consortium: response and survival from slides, MRI, RNA and clinic"


def _chosen(
    available: dict[str, FeatureSpec], names: Sequence[str] | None
) -> dict[str, FeatureSpec]:
    unknown = [name for name in names or () if name not in available]
    if unknown:
        raise ConfigError(
            f"unknown feature sets: {', '.join(unknown)}",
            where="synthetic study",
            cure=f"use some of {', '.join(available)}",
        )
    return {name: available[name] for name in (names or available)}


def demo_study(
    spec: ConsortiumSpec,
    mode: Mode = "local",
    *,
    available: dict[str, FeatureSpec] | None = None,
    features: Sequence[str] | None = None,
    epsilon: float = EPSILON,
    rounds: int | None = None,
    release: EvaluationRelease | None = None,
    model: ModelSpec | None = None,
) -> Study:
    """Return the study of a consortium on disk.

    Private modes train linear heads on pooled frozen features by noised gradient sums; mode none
    trains the fused mixture of experts by local epochs and averaging.

    Args:
        spec: The consortium.
        mode: Privacy mode.
        available: Feature sets there are; those of the raw files by default.
        features: Feature sets to use; all by default.
        epsilon: Training budget of private modes.
        rounds: Rounds of training; 60 private, 12 without.
        release: How evaluation tables leave; with noise in private modes, exact without.
        model: Another model.
    """
    private = mode != "none"
    chosen = _chosen(available or raw_feature_sets(reference_scaling()), features)
    raw = any(feature.extractor is not None for feature in chosen.values())
    return Study(
        study_id=f"synthetic-consortium-{mode}",
        title=TITLE,
        synthetic=True,
        endpoints=_endpoints(spec),
        features=chosen,
        model=model or (_linear(chosen) if private else _FUSED),
        training=_training(spec, private=private, rounds=rounds),
        privacy=PrivacyPlan(
            mode=mode,
            epsilon=epsilon,
            clip=1.0,
            colluders=1 if mode == "distributed" else None,
            evaluation=release or EvaluationRelease(release="dp" if private else "internal"),
        ),
        subgroups=SUBGROUPS if raw else {},
        quorum=Quorum(min_sites=min(2, len(spec.sites))),
        sites=[RosterEntry(site_id=site.site_id, name=site.name) for site in spec.sites],
    )


def feature_study(
    spec: ConsortiumSpec, shape: FeatureShape | None = None, mode: Mode = "none", **options: Any
) -> Study:
    """Return the study of a consortium drawn as features of this shape by `feature_consortium`.

    Further options are those of `demo_study`.
    """
    return demo_study(spec, mode, available=drawn_feature_sets(shape or FeatureShape()), **options)


def _linear(features: dict[str, FeatureSpec]) -> ModelSpec:
    gain: dict[str, JsonValue] = {n: value for n, value in _GAIN.items() if n in features}
    return ModelSpec(name="linear", options={"pooled_norm": 3.0, "gain": gain})


def _endpoints(spec: ConsortiumSpec) -> Endpoints:
    return Endpoints(
        response=ResponseEndpoint(
            positive="complete or partial response (synthetic)",
            prevalence=public_prevalence(spec.signal),
        ),
        survival=SurvivalEndpoint(
            edges_months=EDGES_MONTHS,
            horizons_months=HORIZONS_MONTHS,
            hazards=public_hazards(spec.signal, EDGES_MONTHS),
        ),
    )


def _training(spec: ConsortiumSpec, *, private: bool, rounds: int | None) -> TrainingPlan:
    # Larger steps for the few patients of a demo, smaller ones for the thousands of a benchmark.
    average = sum(site.patients for site in spec.sites) / len(spec.sites)
    lr, batch_size = (4e-3, 16) if average < 300 else (2e-3, 32)
    nominal = max(1, round(sum(site.patients for site in spec.sites) * (1 - TEST_FRACTION)))
    if private:
        return TrainingPlan(
            rounds=rounds or 60,
            local=LocalTraining(kind="gradient_sum"),
            server=ServerOptimizer(name="adam", lr=0.02),
            nominal_patients=nominal,
            test_fraction=TEST_FRACTION,
        )
    return TrainingPlan(
        rounds=rounds or 12,
        local=LocalTraining(kind="epochs", epochs=1, batch_size=batch_size, lr=lr),
        server=ServerOptimizer(name="average", lr=1.0),
        nominal_patients=nominal,
        weight_decay=1e-3,
        test_fraction=TEST_FRACTION,
    )
