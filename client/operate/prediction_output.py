"""Print a hospital's predictions, as text or as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping

from client.explain.explain import Explained
from client.explain.explanation import DISCLAIMER
from client.predict.predict import PatientPrediction
from client.predict.predict_command import SitePredictions
from common.commands.cli_output import Output


def show_predictions(
    done: SitePredictions, explained: Mapping[str, Explained], output: Output
) -> None:
    """Show the predictions, who was left out and why, and where explanations lie.

    Args:
        done: The predictions.
        explained: Patient -> what was written about them; empty without `--explain`.
        output: Where to show them.
    """
    columns, rows = _table(done)
    title = "Predictions (SYNTHETIC patients)" if done.study.synthetic else "Predictions"
    output.table(title, columns, rows)
    for patient, why in done.left_out.items():
        output.say(f"not predicted: {patient}, {why}")
    for patient, found in explained.items():
        output.say(f"explained: {found.files[0].parent}")
        for note in found.notes:
            output.say(f"  not shown for {patient}: {note}")
    output.say(DISCLAIMER)
    output.result(_as_dict(done, explained))


def _table(done: SitePredictions) -> tuple[list[str], list[list[object]]]:
    endpoints = done.study.endpoints
    columns = ["patient"]
    columns += ["P(response)"] if endpoints.response else []
    if endpoints.survival:
        columns += [f"alive {month:g} mo" for month in endpoints.survival.horizons_months]
        columns.append("risk")
    return [*columns, "missing"], [_row(prediction, done) for prediction in done.predictions]


def _row(prediction: PatientPrediction, done: SitePredictions) -> list[object]:
    cells: list[object] = [prediction.patient_id]
    if prediction.response_probability is not None:
        cells.append(f"{prediction.response_probability:.0%}")
    cells += [f"{alive:.0%}" for alive in prediction.at_horizons.values()]
    cells += [prediction.risk] if prediction.risk is not None else []
    why = done.why_missing(prediction.patient_id)
    missing = [f"{modality} ({reason})" for modality, reason in why.items()]
    return [*cells, "; ".join(missing) or "nothing"]


def _as_dict(done: SitePredictions, explained: Mapping[str, Explained]) -> dict[str, object]:
    return {
        "synthetic": done.study.synthetic,
        "study_digest": done.study.digest(),
        "model_digest": done.model_digest,
        "model_recorded": done.model_recorded,
        "predictions": [
            {
                **prediction.as_dict(),
                "why_missing": done.why_missing(prediction.patient_id),
                "role_in_training": done.role(prediction.patient_id),
            }
            for prediction in done.predictions
        ],
        "left_out": done.left_out,
        "explanations": {
            patient: {"files": [str(file) for file in found.files], "notes": found.notes}
            for patient, found in explained.items()
        },
        "disclaimer": DISCLAIMER,
    }
