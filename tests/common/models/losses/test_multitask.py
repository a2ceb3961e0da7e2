"""The training loss counts observed labels only."""

import math

import pytest
import torch
from random_patients import Cohort, make_study

from common.cohort.batch import Outputs
from common.models.losses.discrete_time import nll
from common.models.losses.multitask import patient_loss


@pytest.fixture
def case():
    study = make_study(training={"task_weights": {"survival": 0.5}})
    batch = Cohort(study, 8, seed=1, missing=0.0).batch(range(8))
    generator = torch.Generator().manual_seed(2)
    response = torch.randn(8, generator=generator).requires_grad_()
    hazards = torch.randn(8, 5, generator=generator).requires_grad_()
    return study, batch, Outputs(response, hazards, hazards)


def test_the_loss_is_the_weighted_sum_of_both_tasks(case):
    study, batch, outputs = case
    p = torch.sigmoid(outputs.response_logit)
    cross_entropy = -torch.where(batch.response == 1, p.log(), (1 - p).log())
    edges = torch.tensor(study.endpoints.survival.edges_months)
    survival = nll(outputs.hazard_logits, batch.time_months, batch.event, edges)
    expected = cross_entropy + 0.5 * survival
    assert torch.allclose(patient_loss(outputs, batch, study), expected, atol=1e-6)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -5.0])
def test_an_unobserved_label_changes_neither_value_nor_gradient(case, junk):
    study, batch, outputs = case
    batch.observed["response"] = torch.tensor([True, False] * 4)
    batch.observed["survival"] = torch.tensor([True, True, False, False] * 2)
    clean = patient_loss(outputs, batch, study)
    batch.response = torch.where(batch.observed["response"], batch.response, junk)
    batch.time_months = torch.where(batch.observed["survival"], batch.time_months, junk)
    batch.event = torch.where(batch.observed["survival"], batch.event, junk)
    dirty = patient_loss(outputs, batch, study)
    assert torch.equal(clean, dirty)
    dirty.sum().backward()
    assert (outputs.response_logit.grad[1::2] == 0).all()
    assert (outputs.hazard_logits.grad[[2, 3, 6, 7]] == 0).all()
    assert torch.isfinite(outputs.hazard_logits.grad).all()


def test_a_patient_without_any_label_has_no_loss(case):
    study, batch, outputs = case
    for task in batch.observed:
        batch.observed[task] = torch.zeros(8, dtype=torch.bool)
    assert (patient_loss(outputs, batch, study) == 0).all()
