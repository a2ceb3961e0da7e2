"""Print a hospital's predictions, as text or as one JSON object."""

from collections.abc import Mapping

from client.explain.explain import Explained
from client.explain.explanation import DISCLAIMER
from client.predict.predict import PatientPrediction
from client.predict.predict_command import SitePredictions
from common.commands.cli_output import Output


def show_predictions(
    result: SitePredictions, explanations: Mapping[str, Explained], output: Output
) -> None:
    """Show the predictions, who was left out and why, and where explanations lie.

    Args:
        result: The predictions.
        explanations: Patient -> what was written about them; empty without `--explain`.
        output: Where to show them.
    """
    columns, rows = _table(result)
    title = "Predictions (SYNTHETIC patients)" if result.study.synthetic else "Predictions"
    output.table(title, columns, rows)
    for patient, why in result.left_out.items():
        output.say(f"not predicted: {patient}, {why}")
    for patient, entry in explanations.items():
        output.say(f"explained: {entry.files[0].parent}")
        for note in entry.notes:
            output.say(f"  not shown for {patient}: {note}")
    output.say(DISCLAIMER)
    output.result(_as_dict(result, explanations))


def _table(result: SitePredictions) -> tuple[list[str], list[list[object]]]:
    endpoints = result.study.endpoints
    columns = ["patient"]
    columns += ["P(response)"] if endpoints.response else []
    if endpoints.survival:
        columns += [f"alive {month:g} mo" for month in endpoints.survival.horizons_months]
        columns.append("risk")
    return [*columns, "missing"], [_row(prediction, result) for prediction in result.predictions]


def _row(prediction: PatientPrediction, result: SitePredictions) -> list[object]:
    cells: list[object] = [prediction.patient_id]
    if prediction.response_probability is not None:
        cells.append(f"{prediction.response_probability:.0%}")
    cells += [f"{alive:.0%}" for alive in prediction.at_horizons.values()]
    cells += [prediction.risk] if prediction.risk is not None else []
    why = result.why_missing(prediction.patient_id)
    missing = [f"{modality} ({reason})" for modality, reason in why.items()]
    return [*cells, "; ".join(missing) or "nothing"]


def _as_dict(result: SitePredictions, explanations: Mapping[str, Explained]) -> dict[str, object]:
    return {
        "synthetic": result.study.synthetic,
        "study_digest": result.study.digest(),
        "model_digest": result.model_digest,
        "model_recorded": result.model_recorded,
        "predictions": [
            {
                **prediction.as_dict(),
                "why_missing": result.why_missing(prediction.patient_id),
                "role_in_training": result.role(prediction.patient_id),
            }
            for prediction in result.predictions
        ],
        "left_out": result.left_out,
        "explanations": {
            patient: {"files": [str(file) for file in entry.files], "notes": entry.notes}
            for patient, entry in explanations.items()
        },
        "disclaimer": DISCLAIMER,
    }
