"""Run `tumorboard site predict`: predict with a finished model; nothing leaves the hospital.

In a study whose parameters partly stay local the published model file is incomplete on purpose:
what stayed here was never sent, and is put back before predicting.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from client.agent.local_rounds import STAY, own_model
from client.agent.open_run import accepted_study, open_run, stored_features
from client.data.dataset import PatientDataset
from client.data.split import is_held_out, load_or_create_split_key
from client.predict.predict import PatientPrediction, predict
from client.predict.trained_model import load_trained_model
from client.training.device import choose_device
from common.cohort.manifest import Manifest, PatientRow, read_manifest
from common.errors import ConfigError, DataError
from common.models.base.base import FusedModel
from common.models.base.parameters import load_arrays, to_arrays
from common.study.modalities import Modality
from common.study.site_policy import SitePolicy
from common.study.study import Study

Role = Literal["training", "held out", "no outcome", "unknown"]
"""What a patient was to the training: in it, held out of it, without an outcome, or not known
because this hospital has no record of having taken part."""

NOT_NAMED = "nothing in the manifest"
NOT_EXTRACTED = "in the manifest, but no features extracted"


@dataclass(frozen=True)
class SitePredictions:
    """Predictions of one hospital with all that explaining them needs.

    Attributes:
        policy: The hospital's rules and paths.
        study: The study.
        manifest: The hospital's patients.
        dataset: Those with any features.
        model: The trained model, on `device`.
        model_digest: Digest of its parameters.
        model_recorded: Whether the run's own record confirms study and parameters.
        device: Where it computes.
        predictions: Of the patients asked for.
        cohort: Of all patients of the hospital, for comparison.
        left_out: Patient -> why there is no prediction.
    """

    policy: SitePolicy
    study: Study
    manifest: Manifest
    dataset: PatientDataset
    model: FusedModel
    model_digest: str
    model_recorded: bool
    device: torch.device
    predictions: list[PatientPrediction]
    cohort: list[PatientPrediction]
    left_out: dict[str, str]

    @property
    def frame(self) -> pd.DataFrame:
        """One row per patient: outcomes of the study, modalities missing, role in training.

        Columns: `patient_id`; `response_probability`; `alive_<months>` per horizon and `risk`
        (higher is worse); `missing`; `role`. Those of an endpoint the study lacks are absent.
        """
        rows = [
            {
                "patient_id": prediction.patient_id,
                "response_probability": prediction.response_probability,
                **{f"alive_{month:g}": alive for month, alive in prediction.at_horizons.items()},
                "risk": prediction.risk,
                "missing": ", ".join(prediction.missing),
                "role": self.role(prediction.patient_id),
            }
            for prediction in self.predictions
        ]
        return pd.DataFrame(rows).dropna(axis=1, how="all")

    def why_missing(self, patient_id: str) -> dict[Modality, str]:
        """Return modality -> why the patient lacks it, for each modality that is missing."""
        row = self.manifest.row(patient_id)
        missing = next(p.missing for p in self.cohort if p.patient_id == patient_id)
        return {m: NOT_EXTRACTED if row.has_raw(m) else NOT_NAMED for m in missing}

    def role(self, patient_id: str) -> Role:
        """Return what the patient was to the training of this model."""
        return training_role(self.manifest.row(patient_id), self.policy, self.study)


def predict_patients(
    policy: SitePolicy, study: Study, model_file: Path, patient_ids: Sequence[str] | None = None
) -> SitePredictions:
    """Predict all patients of the hospital, or those named, with the model the hospital uses.

    Outcomes are not needed. Patients without any feature that the model reads are left out,
    since a prediction that rests on nothing is only the published average.

    Args:
        policy: The hospital's rules and paths.
        study: The study the model was trained in.
        model_file: `model.safetensors` of a finished run, or the folder that holds it.
        patient_ids: Whom to predict; everybody if empty.

    Raises:
        ConfigError: The model is missing, unreadable, or not of this study.
        ManifestError: The manifest is wrong.
        FeatureError: A feature file is damaged, not finite, or made by another extractor.
        DataError: A named patient is unknown or has no features; or nobody has.
    """
    model = load_trained_model(study, model_file)
    load_own_parameters(model.model, policy, study, model_file)
    device = choose_device(policy.device)
    manifest = read_manifest(policy.manifest)
    _check_known(manifest, patient_ids or ())
    dataset = PatientDataset.from_store(
        study, manifest, policy.feature_store, require_outcome=False
    )
    everyone = predict(model.model, dataset, study, device=device)
    usable = [prediction for prediction in everyone if prediction.present]
    left_out = _left_out(manifest, usable, model.model)
    return SitePredictions(
        policy=policy,
        study=study,
        manifest=manifest,
        dataset=dataset,
        model=model.model,
        model_digest=model.digest,
        model_recorded=model.recorded,
        device=device,
        predictions=_choose(usable, left_out, patient_ids or (), policy),
        cohort=usable,
        left_out={} if patient_ids else left_out,
    )


def training_role(row: PatientRow, policy: SitePolicy, study: Study) -> Role:
    """Return what a patient was to the training of a study at this hospital.

    A patient who joined the manifest after the run counts as `training` too: nothing records who
    was there, so the cautious answer is given.
    """
    if policy.approval_of(study.digest()) is None or not policy.split_key_file.is_file():
        return "unknown"
    if not row.has_outcome(study.tasks):
        return "no outcome"
    key = load_or_create_split_key(policy.split_key_file)
    held_out = is_held_out(row.patient_id, key, study.training.test_fraction)
    return "held out" if held_out else "training"


def _check_known(manifest: Manifest, patient_ids: Sequence[str]) -> None:
    patients = set(manifest.patient_ids)
    unknown = [patient for patient in patient_ids if patient not in patients]
    if unknown:
        raise DataError(
            f"no such patient: {', '.join(unknown)}",
            where=str(manifest.path),
            cure="check the spelling; identifiers are those of the column patient_id",
        )


def _left_out(
    manifest: Manifest, usable: Sequence[PatientPrediction], model: FusedModel
) -> dict[str, str]:
    """Return patient -> why there is no prediction."""
    usable_ids = {prediction.patient_id for prediction in usable}
    modalities = {spec.modality for spec in model.features.values()}
    return {
        row.patient_id: NOT_EXTRACTED if any(map(row.has_raw, modalities)) else NOT_NAMED
        for row in manifest.rows
        if row.patient_id not in usable_ids
    }


def _choose(
    usable: list[PatientPrediction],
    left_out: dict[str, str],
    patient_ids: Sequence[str],
    policy: SitePolicy,
) -> list[PatientPrediction]:
    unusable = [patient for patient in patient_ids if patient in left_out]
    if unusable or not usable:
        raise DataError(
            f"no features to predict from: {', '.join(unusable) or 'no patient has any'}",
            where=str(policy.feature_store),
            why="; ".join(f"{patient}: {left_out[patient]}" for patient in unusable[:5]),
            cure="run `tumorboard site extract`, then `tumorboard site check`",
        )
    by_id = {prediction.patient_id: prediction for prediction in usable}
    return [by_id[patient] for patient in dict.fromkeys(patient_ids)] if patient_ids else usable


def load_own_parameters(model: FusedModel, policy: SitePolicy, study: Study, path: Path) -> None:
    """Turn the global model into the one of this hospital, where the study says they differ.

    Args:
        model: Holds the global parameters; changed in place.
        policy: The hospital's rules and paths.
        study: The study the model was trained in.
        path: The model file, or its folder; the record beside it names the run.

    Raises:
        ConfigError: The record is missing, or does not name the run.
        ProtocolError: This hospital never took part in that run, or withdrew its approval.
        DataError: It took part, but kept nothing.
    """
    plan = study.training
    if plan.personal is None and not plan.stay_local:
        return
    run_id = _run_id(path)
    run = open_run(policy, run_id, accepted_study(policy, run_id), stored_features(policy))
    if plan.stay_local and not run.memory.latest(STAY):
        raise DataError(
            "this hospital has no parameters of its own from that run",
            where=str(run.memory.folder),
            why=f"the study keeps {', '.join(plan.stay_local)} at each site, and none were trained "
            "here; the published file alone would predict with untrained ones",
            cure="restore the state folder from backup, or take part in a run of the study",
        )
    own = own_model(run, to_arrays(model), personal=plan.personal is not None)
    load_arrays(model, own)


def _run_id(path: Path) -> str:
    file = path / "model.json" if path.is_dir() else path.with_suffix(".json")
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            "the record beside the model does not name its run",
            where=str(file),
            why="every site has parameters of its own in this study, stored by run",
            cure="copy model.safetensors and model.json of the finished run again",
        ) from None
