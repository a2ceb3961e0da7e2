"""The training loss of one patient: the sum over the tasks whose label is observed."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel
from common.models.losses import discrete_time
from common.study.study import Study, Task


def task_losses(outputs: Outputs, batch: PatientBatch, study: Study) -> dict[Task, Tensor]:
    """Return each task's loss, (B,), exactly 0 where the label is not observed.

    What stands in an unobserved label (NaN included) changes neither value nor gradient.
    """
    losses: dict[Task, Tensor] = {}
    if study.endpoints.response is not None:
        observed = batch.observed["response"]
        label = torch.where(observed, batch.response, 0.0).to(outputs.response_logit.dtype)
        value = binary_cross_entropy_with_logits(outputs.response_logit, label, reduction="none")
        losses["response"] = torch.where(observed, value, 0.0)
    if study.endpoints.survival is not None:
        observed = batch.observed["survival"]
        logits = outputs.hazard_logits
        edges = torch.tensor(
            study.endpoints.survival.edges_months, dtype=logits.dtype, device=logits.device
        )
        time_months = torch.where(observed, batch.time_months, 0.0).to(logits.dtype)
        event = torch.where(observed, batch.event, 0.0)
        value = discrete_time.nll(logits, time_months, event, edges)
        losses["survival"] = torch.where(observed, value, 0.0)
    return losses


def patient_loss(outputs: Outputs, batch: PatientBatch, study: Study) -> Tensor:
    """Return the loss of each patient, (B,): observed tasks times public task weights.

    Weights are `study.training.task_weights`, 1 where not given. No term is divided by the
    number of observed labels: that number is private.
    """
    weights = study.training.task_weights
    total = torch.zeros_like(outputs.response_logit)
    for task, loss in task_losses(outputs, batch, study).items():
        total = total + weights.get(task, 1.0) * loss
    return total


class PatientObjective(nn.Module):
    """What training minimises, a module so that `torch.func.functional_call` can carry it.

    Args:
        model: The fused model; its parameters appear under the prefix `model.`.
        study: Endpoints and task weights.
    """

    def __init__(self, model: FusedModel, study: Study) -> None:
        super().__init__()
        self.model = model
        self._study = study

    def prepare(self, batch: PatientBatch) -> PatientBatch:
        """Return what the model prepares of patients as the dataset gives them."""
        return self.model.prepare(batch)

    def forward(self, batch: PatientBatch) -> Tensor:
        """Return the loss of each patient, (B,), from a batch of `model.prepare`."""
        outputs, extra = self.model.training_outputs(batch)
        loss = patient_loss(outputs, batch, self._study)
        return loss if extra is None else loss + extra
