"""What the trained model says about a hospital's own patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from client.dataset import PatientDataset
from common.losses.discrete_time import risk, survival_at
from common.models.base import FusedModel
from common.study import Modality, Study

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PatientPrediction:
    """One patient's prediction; stays at the hospital.

    Attributes:
        response_probability: Probability of the positive class, None without that endpoint.
        risk: Survival risk, higher is worse; None without a survival endpoint.
        survival: Probability to be alive at each of `months`.
        months: Times of the curve.
        present: Modalities the prediction rests on.
        missing: Modalities of the study that this patient lacks.
    """

    patient_id: str
    response_probability: float | None
    risk: float | None
    survival: tuple[float, ...]
    months: tuple[float, ...]
    present: tuple[Modality, ...]
    missing: tuple[Modality, ...]

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return dict(self.__dict__)


def predict(
    model: FusedModel, dataset: PatientDataset, study: Study, *, device: str = "cpu"
) -> list[PatientPrediction]:
    """Return one prediction a patient of `dataset`, in its order."""
    return [_predict_one(model, dataset, study, i, device) for i in range(len(dataset))]


def curve_months(study: Study) -> tuple[float, ...]:
    """Return monthly times from 0 to the last finite edge, () without a survival endpoint."""
    survival = study.endpoints.survival
    if survival is None:
        return ()
    return tuple(float(month) for month in range(0, int(survival.edges_months[-1]) + 1, 3))


def _predict_one(
    model: FusedModel, dataset: PatientDataset, study: Study, index: int, device: str
) -> PatientPrediction:
    batch = dataset.batch([index]).to(device)
    model.eval()
    with torch.no_grad():
        outputs = model(batch)
    having = {study.features[name].modality for name, flag in batch.present.items() if flag[0]}
    present = tuple(modality for modality in study.modalities if modality in having)
    months = curve_months(study)
    survival: tuple[float, ...] = ()
    if study.endpoints.survival is not None:
        edges = torch.tensor(study.endpoints.survival.edges_months, device=device)
        at = survival_at(outputs.hazard_logits, edges, torch.tensor(months, device=device))
        survival = tuple(float(value) for value in at[0])
    return PatientPrediction(
        patient_id=dataset.patient_ids[index],
        response_probability=(
            float(torch.sigmoid(outputs.response_logit[0])) if study.endpoints.response else None
        ),
        risk=float(risk(outputs.hazard_logits)[0]) if study.endpoints.survival else None,
        survival=survival,
        months=months,
        present=present,
        missing=tuple(m for m in study.modalities if m not in present),
    )
