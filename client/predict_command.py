"""Loads a finished model and a hospital's patients, and predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from client.dataset import PatientDataset
from client.predict import PatientPrediction, predict
from common.errors import ConfigError, DataError
from common.manifest import Manifest, read_manifest
from common.models.base import FusedModel
from common.models.parameters import load_arrays
from common.models.registry import build_model
from common.site_policy import SitePolicy
from common.study import Study
from common.wire import Arrays, arrays_digest


@dataclass(frozen=True)
class SitePredictions:
    """Predictions of one hospital with all that explaining them needs."""

    policy: SitePolicy
    study: Study
    manifest: Manifest
    dataset: PatientDataset
    model: FusedModel
    model_digest: str
    predictions: list[PatientPrediction]
    cohort_risks: list[float]


def predict_patients(
    policy: SitePolicy, study: Study, model_file: Path, patient_ids: Sequence[str] | None = None
) -> SitePredictions:
    """Predict all patients of the hospital, or those named.

    Raises:
        ConfigError: The model file is missing, unreadable, or not of this study.
        ManifestError: The manifest is wrong.
        DataError: A named patient is not in the manifest or has no features.
    """
    arrays = _read_model(model_file)
    model = build_model(study)
    load_arrays(model, arrays)
    manifest = read_manifest(policy.manifest)
    dataset = PatientDataset.from_store(study, manifest, policy.feature_store)
    everyone = predict(model, dataset, study)
    chosen = _choose(everyone, patient_ids, policy)
    return SitePredictions(
        policy=policy,
        study=study,
        manifest=manifest,
        dataset=dataset,
        model=model,
        model_digest=arrays_digest(arrays),
        predictions=chosen,
        cohort_risks=[p.risk for p in everyone if p.risk is not None],
    )


def _read_model(path: Path) -> Arrays:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            "the model file cannot be read",
            where=str(path),
            why=type(error).__name__,
            cure="pass the model.safetensors of a finished run",
        ) from None


def _choose(
    everyone: list[PatientPrediction], patient_ids: Sequence[str] | None, policy: SitePolicy
) -> list[PatientPrediction]:
    if not patient_ids:
        return everyone
    known = {prediction.patient_id: prediction for prediction in everyone}
    unknown = [pid for pid in patient_ids if pid not in known]
    if unknown:
        raise DataError(
            f"no usable patient {', '.join(unknown)}",
            where=str(policy.manifest),
            why="the patient is not in the manifest, or no feature of theirs was extracted",
            cure="see `tumorboard site check`",
        )
    return [known[pid] for pid in patient_ids]
