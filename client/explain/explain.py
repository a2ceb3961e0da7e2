"""Writes everything that explains a hospital's predictions: one folder a patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from client.explain.attribution import Attribution, attribute
from client.explain.slice_attention import write_slices
from client.explain.slide_overlay import write_geojson, write_overlay
from client.explain.text_report import patient_report
from client.extract.registry import create_extractor
from client.predict import PatientPrediction
from client.predict_command import SitePredictions
from common.atomic_file import whole_or_nothing
from common.cli_output import Output
from common.features_h5 import FeatureFile, feature_path, read_features

TOP = 3


def explain_patients(
    done: SitePredictions, folder: Path, *, output: Output
) -> dict[str, list[Path]]:
    """Write explanations below `folder`; return the files of each patient.

    Per patient: `report.txt`; per slide an attention overlay (PNG) and GeoJSON for QuPath; the
    slices that were read with their attention (PNG).
    """
    written: dict[str, list[Path]] = {}
    with output.progress(len(done.predictions), "explaining patients") as progress:
        for prediction in done.predictions:
            target = folder / prediction.patient_id
            written[prediction.patient_id] = _explain_one(done, prediction, target)
            progress.advance(note=prediction.patient_id)
    return written


def _explain_one(done: SitePredictions, prediction: PatientPrediction, folder: Path) -> list[Path]:
    index = done.dataset.patient_ids.index(prediction.patient_id)
    batch = done.dataset.batch([index])
    with torch.no_grad():
        attention = {
            name: weights[0].double().numpy()
            for name, weights in done.model(batch).attention.items()
            if bool(batch.present[name][0])
        }
    attributions = [attribute(done.model, batch, done.study, task) for task in done.study.tasks]
    files = _pictures(done, prediction.patient_id, attention, folder)
    text = patient_report(
        prediction,
        attributions,
        done.study,
        cohort_risks=done.cohort_risks,
        top_tokens=_top_tokens(done, attributions),
        model_digest=done.model_digest,
        epsilon_spent=done.study.privacy.epsilon if done.study.privacy.is_private else None,
    )
    report = folder / "report.txt"
    with whole_or_nothing(report) as partial:
        partial.write_text(text, encoding="utf-8")
    return [report, *files]


def _pictures(
    done: SitePredictions,
    patient_id: str,
    attention: dict[str, npt.NDArray[np.float64]],
    folder: Path,
) -> list[Path]:
    files: list[Path] = []
    for name, weights in attention.items():
        spec = done.study.features[name]
        path = feature_path(done.policy.feature_store, name, patient_id)
        if spec.extractor is None or not path.is_file():
            continue
        file = read_features(path)
        if len(file.features) != len(weights) or file.coords is None:
            continue  # a subsampled bag: its attention has no place on the slide
        if spec.extractor.kind == "tiles":
            files += _slides(done, patient_id, name, file, weights, folder)
        elif spec.extractor.kind == "slices":
            files += _slices(done, patient_id, name, weights, folder)
    return files


def _slides(
    done: SitePredictions,
    patient_id: str,
    name: str,
    file: FeatureFile,
    weights: npt.NDArray[np.float64],
    folder: Path,
) -> list[Path]:
    if file.coords is None:
        return []
    slide_index = file.slide_index if file.slide_index is not None else np.zeros(len(weights), int)
    files = []
    for k, slide in enumerate(done.manifest.row(patient_id).slides):
        here = slide_index == k
        if not here.any():
            continue
        tile_px = float(file.attrs[f"tile_px_level0_{k}"])
        overlay = folder / f"{name}_{slide.stem}_attention.png"
        geojson = folder / f"{name}_{slide.stem}_attention.geojson"
        title = f"{patient_id}: {slide.name}" + (" (SYNTHETIC)" if done.study.synthetic else "")
        write_overlay(overlay, slide, file.coords[here], tile_px, weights[here], title=title)
        write_geojson(geojson, file.coords[here], tile_px, weights[here], label="tumorboard")
        files += [overlay, geojson]
    return files


def _slices(
    done: SitePredictions,
    patient_id: str,
    name: str,
    weights: npt.NDArray[np.float64],
    folder: Path,
) -> list[Path]:
    extractor = create_extractor(name, done.study.features[name])
    images, labels = extractor.images(done.manifest.row(patient_id))
    if len(images) != len(weights):
        return []
    target = folder / f"{name}_attention.png"
    title = f"{patient_id}: {name}" + (" (SYNTHETIC)" if done.study.synthetic else "")
    write_slices(target, images, labels, weights, title=title)
    return [target]


def _top_tokens(done: SitePredictions, attributions: list[Attribution]) -> dict[str, list[str]]:
    """Return, for feature sets whose tokens have names, those with the largest attribution."""
    top: dict[str, list[str]] = {}
    for attribution in attributions:
        for feature, values in attribution.tokens.items():
            names = done.study.features[feature].names
            if names is None or len(names) != len(values) or len(values) < 2:
                continue
            best = np.argsort(-np.abs(values))[:TOP]
            top[f"{feature} ({attribution.task})"] = [
                f"{names[i]} ({values[i]:+.2f})" for i in best
            ]
    return top
