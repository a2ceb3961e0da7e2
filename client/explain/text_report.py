"""Write a patient's report in words: templates filled with numbers, no generated text."""

from textwrap import fill

from client.explain.attribution import READABLE_ERROR, Attribution, contributions, shares
from client.explain.explanation import DISCLAIMER, Explanation
from client.predict.predict_command import Role
from common.study.modalities import MODALITIES

_WIDTH = 96
_WIDE = max(map(len, MODALITIES)) + 1

_ROLES: dict[Role, str] = {
    "training": "This patient may have been in the training set; the prediction may look better "
    "than it would for a new patient.",
    "held out": "This patient was held out of the training.",
    "no outcome": "This patient has no outcome and was not trained on.",
    "unknown": "This hospital has no record of having taken part in the training.",
}


def patient_report(explanation: Explanation) -> str:
    """Return the report of one patient as plain text, at most 96 columns wide."""
    patient = explanation.prediction.patient_id
    parts = [f"Patient {patient}", "=" * (8 + len(patient)), ""]
    if explanation.study.synthetic:
        parts += ["SYNTHETIC DATA: this report describes no real person.", ""]
    parts += [*_predicted(explanation), "", *_rests_on(explanation)]
    for attribution in explanation.attributions:
        parts += ["", *_attributed(explanation, attribution)]
    if explanation.notes:
        parts += ["", "Not shown", *(_indented(note) for note in explanation.notes)]
    parts += ["", *_provenance(explanation), "", fill(DISCLAIMER, _WIDTH)]
    return "\n".join(parts) + "\n"


def _predicted(explanation: Explanation) -> list[str]:
    prediction, endpoints = explanation.prediction, explanation.study.endpoints
    lines = ["Prediction"]
    if prediction.response_probability is not None and endpoints.response is not None:
        label = f"response ({endpoints.response.positive})"
        lines.append(f"  {prediction.response_probability:>5.0%}  {label}")
    for month, alive in prediction.at_horizons.items():
        lines.append(f"  {alive:>5.0%}  alive at {month:g} months")
    if explanation.risk_rank is not None:
        others = f"{explanation.n_others} other patients"
        lines.append(
            f"  {explanation.risk_rank:>5.0%}  of this hospital's {others} are at lower risk"
        )
    lines.append(
        _indented("Point predictions; the study's report says how well they are calibrated.")
    )
    return [*lines, _indented(_ROLES[explanation.role])]


def _rests_on(explanation: Explanation) -> list[str]:
    prediction, study = explanation.prediction, explanation.study
    lines = ["Rests on"]
    for modality in prediction.present:
        read = [
            f"{name} ({_count(*explanation.tokens_read[name])})"
            for name, spec in study.features.items()
            if spec.modality == modality and name in explanation.tokens_read
        ]
        lines.append(f"  {modality:<{_WIDE}}  {', '.join(read)}")
    lines.append("Missing")
    lines += [f"  {modality:<{_WIDE}}  {why}" for modality, why in explanation.why_missing.items()]
    partly = [
        name
        for name in prediction.missing_features
        if study.features[name].modality not in prediction.missing
    ]
    lines += [f"  {study.features[name].modality:<{_WIDE}}  {name} only" for name in partly]
    return (
        lines if len(lines) > len(prediction.present) + 2 else [*lines[:-1], "Missing", "  nothing"]
    )


def _count(read: int, there: int) -> str:
    if read < there:
        return f"{read} of {there} tokens"
    return f"{there} token" + ("s" if there != 1 else "")


def _attributed(explanation: Explanation, attribution: Attribution) -> list[str]:
    response = attribution.task == "response"
    what = "response (logit; + towards response)" if response else "survival risk (+ worse)"
    title = f"What moved the {what}"
    if not attribution.readable:
        why = (
            f"not shown: the attributions miss their sum by {attribution.completeness_error:.0%}, "
            f"allowed are {READABLE_ERROR:.0%}"
        )
        return [title, _indented(why)]
    features = explanation.study.features
    lines = [
        title,
        f"  {attribution.baseline:+.3f}  public mean patient",
        f"  {attribution.output:+.3f}  this patient",
    ]
    share = shares(attribution, features)
    by_modality = contributions(attribution, features)
    for modality in sorted(by_modality, key=lambda m: -abs(by_modality[m])):
        line = f"{by_modality[modality]:+.3f}  {modality:<{_WIDE}}"
        lines.append(f"  {line}  {share[modality]:>4.0%} of all movement")
    for name, inputs in explanation.strongest.get(attribution.task, {}).items():
        text = "; ".join(f"{label} {value:+.3f}" for label, value in inputs)
        lines.append(_indented(f"most in {name}: {text}"))
    lines.append(
        _indented(
            f"Integrated gradients, {attribution.steps} steps, completeness error "
            f"{attribution.completeness_error:.1%}."
        )
    )
    return lines


def _provenance(explanation: Explanation) -> list[str]:
    study = explanation.study
    source = "confirmed by" if explanation.model_recorded else "not confirmed: it came without"
    sentences = [
        f"Study {study.study_id} version {study.version}, digest {study.digest():.16}.",
        f"Model {study.model.name}, digest {explanation.model_digest:.16}, {source} the record "
        "of its run.",
        *explanation.privacy,
    ]
    return ["Model", *(_indented(sentence) for sentence in sentences)]


def _indented(text: str) -> str:
    return fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
