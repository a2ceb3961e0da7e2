"""Predict a hospital's own patients with the trained model."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from client.data.dataset import PatientDataset
from common.cohort.batch import Outputs
from common.models.base.base import FusedModel
from common.models.losses.discrete_time import risk, survival_at
from common.study.modalities import MODALITIES, Modality
from common.study.study import Study

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PatientPrediction:
    """One patient's prediction; it stays at the hospital.

    Attributes:
        patient_id: Whose prediction.
        response_probability: Probability of the positive class, None without that endpoint.
        risk: Survival risk, higher is worse; None without a survival endpoint.
        months: Times of the survival curve, one per month; empty without a survival endpoint.
        survival: Probability to be alive at each of `months`.
        at_horizons: Horizon in months -> probability to be alive then.
        present: Modalities the prediction rests on.
        missing: Modalities the model reads and the patient lacks.
        missing_features: Feature sets the model reads and the patient lacks.
    """

    patient_id: str
    response_probability: float | None
    risk: float | None
    months: tuple[float, ...]
    survival: tuple[float, ...]
    at_horizons: dict[float, float]
    present: tuple[Modality, ...]
    missing: tuple[Modality, ...]
    missing_features: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON; horizons become text such as "12"."""
        plain = asdict(self)
        plain["at_horizons"] = {f"{month:g}": alive for month, alive in self.at_horizons.items()}
        return plain


def predict(
    model: FusedModel, dataset: PatientDataset, study: Study, *, device: torch.device | str = "cpu"
) -> list[PatientPrediction]:
    """Return one prediction per patient of `dataset`, in its order.

    Args:
        model: The trained model; afterwards in evaluation mode and on `device`.
        dataset: Patients; outcomes are not read.
        study: The study; its endpoints say what is predicted.
        device: Where to compute.

    Raises:
        FeatureError: A patient's feature file is damaged or not finite.
    """
    model.eval().to(device)
    return [_predict_one(model, dataset, study, index, device) for index in range(len(dataset))]


def curve_months(study: Study) -> tuple[float, ...]:
    """Return every month from 0 to the last edge or horizon, () without a survival endpoint."""
    survival = study.endpoints.survival
    if survival is None:
        return ()
    last = max(survival.edges_months[-1], *survival.horizons_months)
    return tuple(float(month) for month in range(int(np.ceil(last)) + 1))


def _predict_one(
    model: FusedModel,
    dataset: PatientDataset,
    study: Study,
    index: int,
    device: torch.device | str,
) -> PatientPrediction:
    batch = dataset.batch([index]).to(device)
    with torch.no_grad():
        outputs = model(batch)
    here = {name: bool(batch.present[name][0]) for name in model.features}
    read = {spec.modality for spec in model.features.values()}
    having = {model.features[name].modality for name, flag in here.items() if flag}
    months = curve_months(study)
    horizons = study.endpoints.survival.horizons_months if study.endpoints.survival else []
    return PatientPrediction(
        patient_id=dataset.patient_ids[index],
        response_probability=(
            float(torch.sigmoid(outputs.response_logit[0])) if study.endpoints.response else None
        ),
        risk=float(risk(outputs.hazard_logits)[0]) if study.endpoints.survival else None,
        months=months,
        survival=_alive_at(outputs, study, months),
        at_horizons=dict(zip(horizons, _alive_at(outputs, study, horizons), strict=True)),
        present=tuple(m for m in MODALITIES if m in having),
        missing=tuple(m for m in MODALITIES if m in read - having),
        missing_features=tuple(name for name, flag in here.items() if not flag),
    )


def _alive_at(
    outputs: Outputs, study: Study, months: tuple[float, ...] | list[float]
) -> tuple[float, ...]:
    """Return the probability to be alive at each of `months`."""
    if study.endpoints.survival is None:
        return ()
    logits = outputs.hazard_logits
    edges = torch.tensor(study.endpoints.survival.edges_months, device=logits.device)
    alive = survival_at(logits, edges, torch.tensor(list(months), device=logits.device))
    return tuple(float(value) for value in alive[0])
