"""Write the explanations of a hospital's predictions: one folder per patient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from client.data.bags import token_sample
from client.explain.attribution import Attribution, attribute
from client.explain.explanation import Explanation
from client.explain.patient_folder import RECORD, patient_folder
from client.explain.pictures import BagView, bag_pictures
from client.explain.summary_picture import FEWEST_OTHERS, write_summary
from client.explain.text_report import patient_report
from client.explain.token_names import input_names, ranked_inputs
from client.explain.training_privacy import training_privacy
from client.predict.predict import PatientPrediction
from client.predict.predict_command import SitePredictions
from client.site.site_folder import writable_folder
from common.cohort.batch import PatientBatch
from common.cohort.features_h5 import feature_path, read_features
from common.commands.cli_output import Output
from common.storage.atomic_file import write_text

TOP = 3
REPORT, SUMMARY = "report.txt", "summary.png"


@dataclass(frozen=True)
class Explained:
    """What was written about one patient, and what could not be shown."""

    files: list[Path]
    notes: list[str]


def explain_patients(
    done: SitePredictions, folder: Path, *, output: Output
) -> dict[str, Explained]:
    """Write explanations below `folder`; return what was written about each patient.

    Per patient: `prediction.json`, `report.txt`, `summary.png`; per slide an overlay (PNG) and
    its tiles for QuPath (GeoJSON); the slices that were read (PNG). A patient's files replace
    those of the last explanation together, or not at all.

    Args:
        done: The predictions to explain.
        folder: Made if need be; one folder per patient below it.
        output: Shows progress.

    Raises:
        ConfigError: The folder cannot be written, or an optional library is not installed.
        FeatureError: A feature file was damaged since the prediction.
    """
    writable_folder(folder, key="--explain")
    privacy = training_privacy(done.study, done.policy)
    explanations: dict[str, Explained] = {}
    with output.progress(len(done.predictions), "explaining patients") as progress:
        for prediction in done.predictions:
            target = folder / prediction.patient_id
            with patient_folder(target) as waiting:
                names, notes = _explain_one(done, prediction, privacy, waiting)
            files = [target / name for name in names]
            explanations[prediction.patient_id] = Explained(files, notes)
            progress.advance(note=prediction.patient_id)
    return explanations


def _explain_one(
    done: SitePredictions, prediction: PatientPrediction, privacy: list[str], folder: Path
) -> tuple[list[str], list[str]]:
    """Write one patient's files into an empty folder; return their names, and the notes."""
    index = done.dataset.patient_ids.index(prediction.patient_id)
    batch = done.dataset.batch([index]).to(done.device)
    attributions = [attribute(done.model, batch, task) for task in done.study.tasks]
    views = list(_bags(done, prediction.patient_id, batch))
    notes: list[str] = []
    for view in views:
        notes += bag_pictures(view, attributions, folder, synthetic=done.study.synthetic)
    write_summary(
        folder / SUMMARY,
        prediction,
        attributions,
        done.study.features,
        cohort=done.cohort,
        title=f"Patient {prediction.patient_id}",
        synthetic=done.study.synthetic,
    )
    rank, n_others = _risk_rank(prediction, done.cohort)
    explanation = Explanation(
        study=done.study,
        prediction=prediction,
        role=done.role(prediction.patient_id),
        why_missing=done.why_missing(prediction.patient_id),
        tokens_read={view.name: (len(view.kept), len(view.file.features)) for view in views},
        attributions=attributions,
        strongest={a.task: _strongest(a, views) for a in attributions if a.readable},
        risk_rank=rank,
        n_others=n_others,
        model_digest=done.model_digest,
        model_recorded=done.model_recorded,
        privacy=privacy,
        notes=notes,
    )
    write_text(folder / REPORT, patient_report(explanation))
    names = sorted(file.name for file in folder.iterdir())
    record = {**explanation.as_dict(), "files": names}
    write_text(folder / RECORD, json.dumps(record, indent=1, allow_nan=False))
    return [RECORD, *names], notes


def _bags(done: SitePredictions, patient_id: str, batch: PatientBatch) -> Iterator[BagView]:
    """Yield every feature set that the model read of a patient."""
    with torch.no_grad():
        attention = done.model(batch).attention
    for name, spec in done.model.features.items():
        if not bool(batch.present[name][0]):
            continue
        path = feature_path(done.policy.feature_store, name, patient_id)
        file = read_features(path)
        weights: npt.NDArray[np.float64] | None = None
        if name in attention:
            weights = attention[name][0].double().cpu().numpy()
        yield BagView(
            name=name,
            spec=spec,
            row=done.manifest.row(patient_id),
            file=file,
            where=str(path),
            kept=token_sample(name, patient_id, len(file.features), spec.max_tokens),
            attention=weights,
        )


def _strongest(
    attribution: Attribution, views: list[BagView]
) -> dict[str, list[tuple[str, float]]]:
    """Return feature set -> its named inputs with the largest attribution."""
    strongest = {}
    for view in views:
        names = input_names(view.name, view.spec, view.file, view.kept)
        names_ranked = ranked_inputs(attribution.inputs[view.name], names, TOP)
        if names_ranked:
            strongest[view.name] = names_ranked
    return strongest


def _risk_rank(
    prediction: PatientPrediction, cohort: list[PatientPrediction]
) -> tuple[float | None, int]:
    """Return the share of the other patients at lower risk, and their number."""
    others = [
        p.risk for p in cohort if p.risk is not None and p.patient_id != prediction.patient_id
    ]
    if prediction.risk is None or len(others) < FEWEST_OTHERS:
        return None, len(others)
    return sum(risk < prediction.risk for risk in others) / len(others), len(others)
