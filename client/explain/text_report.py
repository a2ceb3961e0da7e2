"""A patient's report in words: filled from numbers by a template, nothing generated freely."""

from __future__ import annotations

from collections.abc import Sequence

from client.explain.attribution import Attribution
from client.predict import PatientPrediction
from common.study import Study

DISCLAIMER = (
    "Research software for decision support. Not a medical device. Attention and attribution "
    "describe the model, not the disease."
)
READABLE_ERROR = 0.05


def patient_report(
    prediction: PatientPrediction,
    attributions: Sequence[Attribution],
    study: Study,
    *,
    cohort_risks: Sequence[float],
    top_tokens: dict[str, list[str]],
    model_digest: str,
    epsilon_spent: float | None,
) -> str:
    """Return the report of one patient as plain text.

    Args:
        prediction: What the model said.
        attributions: Integrated gradients, at most one a task.
        study: The study the model was trained in.
        cohort_risks: Risks of the hospital's own patients, for the percentile.
        top_tokens: Per feature set, the tokens that weigh most, in words.
        model_digest: Digest of the model's parameters.
        epsilon_spent: Training epsilon behind the model, None in mode `none`.
    """
    lines = [f"Patient {prediction.patient_id}", "=" * (8 + len(prediction.patient_id)), ""]
    if study.synthetic:
        lines += ["SYNTHETIC DATA: this report describes no real person.", ""]
    lines += _predicted(prediction, study, cohort_risks)
    lines += ["", f"Rests on: {', '.join(prediction.present) or 'no modality'}."]
    if prediction.missing:
        lines += [f"Missing for this patient: {', '.join(prediction.missing)}."]
    for attribution in attributions:
        lines += ["", *_attributed(attribution)]
    lines += [
        f"  most weight in {name}: {', '.join(tokens)}" for name, tokens in top_tokens.items()
    ]
    lines += ["", *_provenance(study, model_digest, epsilon_spent), "", DISCLAIMER]
    return "\n".join(lines) + "\n"


def _predicted(
    prediction: PatientPrediction, study: Study, cohort_risks: Sequence[float]
) -> list[str]:
    lines = []
    if prediction.response_probability is not None and study.endpoints.response is not None:
        positive = study.endpoints.response.positive
        lines.append(f"Probability of response ({positive}): {prediction.response_probability:.0%}")
    if prediction.risk is not None and study.endpoints.survival is not None:
        for horizon in study.endpoints.survival.horizons_months:
            alive = _at(prediction, horizon)
            lines.append(f"Probability to be alive at {horizon:g} months: {alive:.0%}")
        below = sum(risk <= prediction.risk for risk in cohort_risks) / max(len(cohort_risks), 1)
        lines.append(
            f"Risk higher than or equal to that of {below:.0%} of this hospital's "
            f"{len(cohort_risks)} patients."
        )
    lines.append("These are point predictions; the study's report gives the model's calibration.")
    return lines


def _at(prediction: PatientPrediction, month: float) -> float:
    nearest = min(range(len(prediction.months)), key=lambda i: abs(prediction.months[i] - month))
    return prediction.survival[nearest]


def _attributed(attribution: Attribution) -> list[str]:
    what = "response" if attribution.task == "response" else "survival risk"
    if attribution.completeness_error > READABLE_ERROR:
        return [
            f"What moved the {what}: not shown, the attribution misses its target by "
            f"{attribution.completeness_error:.0%} (allowed {READABLE_ERROR:.0%})."
        ]
    ranked = sorted(attribution.share.items(), key=lambda pair: -pair[1])
    shares = ", ".join(f"{modality} {share:.0%}" for modality, share in ranked if share > 0)
    return [f"What moved the {what} (integrated gradients): {shares}."]


def _provenance(study: Study, model_digest: str, epsilon_spent: float | None) -> list[str]:
    spent = (
        "trained without differential privacy"
        if epsilon_spent is None
        else f"trained with patient-level differential privacy, epsilon {epsilon_spent:.2f} "
        f"of this hospital spent"
    )
    return [
        f"Study {study.study_id} version {study.version}, digest {study.digest()[:16]}.",
        f"Model {study.model.name}, digest {model_digest[:16]}; {spent}.",
    ]
