"""Derive the grid of an evaluation request; server and site must compute it alike."""

import math
from typing import TypedDict

from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import TableNoise, noise_plan
from common.privacy.geometric_fallback import share_epsilon
from common.privacy.plan import Phase, Release
from common.protocol.protocol import EvaluateRequest
from common.study.private_round import collusion_of
from common.study.study import Study, Task
from common.wire import Arrays, arrays_digest

MIN_HELD_OUT_FOR_NOISY_MARGINS = 50
"""Below this public count noisy score margins find the scores too rarely. Above it they are worth
their tenth of the evaluation epsilon: on real cohorts (100 to 270 held out, six sites) default
cuts that miss the model's scores cost up to 0.14 of C, refined ones at most 0.02."""


FEDERATED = "federated"
PERSONAL = "personal"
"""Labels of the models that a run evaluates."""

SECOND = "second/"
"""Names of the second model's arrays in a paired request start so."""


class GridFields(TypedDict):
    """Fields of an `EvaluateRequest` that describe a refined grid."""

    score_cuts: dict[Task, list[float]]
    censoring: list[float] | None
    risk_threshold: float | None


def two_phases(study: Study, release: Release) -> bool:
    """Return whether margins are requested before tables; follows from public constants alone."""
    held_out = study.training.nominal_patients * study.training.test_fraction
    return release == "internal" or held_out >= MIN_HELD_OUT_FOR_NOISY_MARGINS


def with_release(study: Study, release: Release) -> Study:
    """Return the study with the release that was agreed on, which may be stricter than its own."""
    evaluation = study.privacy.evaluation.model_copy(update={"release": release})
    privacy = study.privacy.model_copy(update={"evaluation": evaluation})
    return study.model_copy(update={"privacy": privacy})


def grid_of(study: Study, request: EvaluateRequest) -> EvaluationGrid:
    """Return the grid that a request asks for.

    Raises:
        ConfigError: Cuts or censoring curve are impossible.
    """
    return EvaluationGrid.for_study(
        with_release(study, request.release),
        score_cuts=request.score_cuts,
        censoring=request.censoring,
        risk_threshold=request.risk_threshold,
    )


def second_grid_of(study: Study, request: EvaluateRequest) -> EvaluationGrid:
    """Return the grid for the second model of a paired request; it differs in score cuts alone.

    Raises:
        ConfigError: Cuts are impossible.
    """
    return grid_of(study, request.model_copy(update={"score_cuts": request.second_cuts}))


def join_pair(first: Arrays, second: Arrays) -> Arrays:
    """Return both models' arrays under distinct names."""
    return {**first, **{f"{SECOND}{name}": array for name, array in second.items()}}


def split_pair(arrays: Arrays) -> tuple[Arrays, Arrays]:
    """Return (first, second) model's arrays under their own names."""
    second = {n.removeprefix(SECOND): a for n, a in arrays.items() if n.startswith(SECOND)}
    return {n: a for n, a in arrays.items() if not n.startswith(SECOND)}, second


def grid_fields(grid: EvaluationGrid) -> GridFields:
    """Return the request fields from which `grid_of` rebuilds a grid."""
    cuts: dict[Task, list[float]] = {}
    if grid.has_response:
        cuts["response"] = grid.response_cuts.tolist()
    if grid.has_survival:
        cuts["survival"] = grid.survival_cuts.tolist()
    return {
        "score_cuts": cuts,
        "censoring": None if grid.censoring is None else grid.censoring.tolist(),
        "risk_threshold": grid.risk_threshold,
    }


def planned_evaluation(study: Study, run_id: str, release: Release) -> list[EvaluateRequest]:
    """Return the requests of a study's one evaluation; its model is not known yet."""
    phases: list[Phase] = ["margins", "tables"] if two_phases(study, release) else ["tables"]
    return [
        EvaluateRequest(run_id=run_id, round=0, model_digest="0" * 64, release=release, phase=p)
        for p in phases
    ]


def study_questions(study: Study, release: Release) -> set[tuple[str, Phase]]:
    """Return (label, phase) of everything that a study's runs ask about held-out patients."""
    labels = [FEDERATED] if study.training.personal is None else [FEDERATED, PERSONAL]
    phases: list[Phase] = [request.phase for request in planned_evaluation(study, "any", release)]
    questions = {(label, phase) for label in labels for phase in phases}
    if PERSONAL in labels and release == "internal":
        questions.add((paired_label(FEDERATED, PERSONAL), "paired"))
    return questions


def paired_label(first: str, second: str) -> str:
    """Return the label of the joint tables of two evaluated models."""
    return f"{second}_vs_{first}"


def evaluated_model(request: EvaluateRequest) -> str:
    """Return the digest of the model a request is about; of a pair, of the first one."""
    if request.phase == "paired" and request.arrays:
        return arrays_digest(split_pair(request.arrays)[0])
    return request.model_digest


def evaluation_promise(study: Study, release: Release) -> tuple[float, float]:
    """Return the pure epsilon of a study's one evaluation: with t colluders, and if all collude.

    Raises:
        PrivacyError: The numbers of colluders do not work.
    """
    tables = [
        table.epsilon
        for request in planned_evaluation(study, "planned", release)
        for table in table_noise(study, request).values()
    ]
    shares = collusion_of(study).shares if study.privacy.mode == "distributed" else 1
    return math.fsum(tables), math.fsum(share_epsilon(epsilon, shares) for epsilon in tables)


def evaluation_in_words(study: Study, release: Release) -> str:
    """Return what one evaluation of a study promises a held-out patient."""
    if release == "internal":
        return "exact tables of held-out patients in sums over hospitals; no guarantee"
    epsilon, alone = evaluation_promise(study, release)
    promise = f"patient-level epsilon {epsilon:g} for held-out patients, all tables together"
    if study.privacy.mode != "distributed":
        return promise
    return f"{promise}; epsilon {alone:.3g} if the server and all other hospitals collude"


def table_noise(study: Study, request: EvaluateRequest) -> dict[str, TableNoise]:
    """Return the noise of every table a request asks for; empty for release internal."""
    twice = two_phases(study, request.release)
    return noise_plan(grid_of(study, request), request.phase, two_phases=twice)
