"""What every registered model must hold: a function of one patient, absence exact."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_patients import SMALL_MODELS, Cohort, make_study, random_model
from torch.utils import _pytree as pytree

from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import BLOCKS, block_of
from common.models.base.validators import check_private
from common.models.losses.multitask import PatientObjective
from common.study.catalogue import MODELS
from common.study.modalities import MODALITIES

every_model = pytest.mark.parametrize("name", sorted(SMALL_MODELS))


def study_of(name: str):
    return make_study(name, **SMALL_MODELS[name])


def double(batch: PatientBatch) -> PatientBatch:
    return pytree.tree_map(lambda t: t.double() if t.is_floating_point() else t, batch)


def outputs_of(model: FusedModel, batch: PatientBatch) -> Outputs:
    with torch.no_grad():
        return model(batch)


def said(outputs: Outputs) -> torch.Tensor:
    parts = [outputs.response_logit[:, None], outputs.hazard_logits, outputs.embedding]
    return torch.cat(parts, dim=1)


@every_model
def test_a_model_reads_the_modalities_of_its_entry(name):
    read = {spec.modality for spec in build_model(study_of(name)).features.values()}
    says = set(MODELS.get(name).reads)
    assert read == says if says else read <= set(MODALITIES)


@every_model
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), extra=st.integers(0, 7))
def test_a_patient_is_seen_the_same_alone_in_any_order_and_under_padding(name, seed, extra):
    study = study_of(name)
    cohort = Cohort(study, 5, seed=seed)
    model = random_model(study, seed).double()
    alone = torch.cat([said(outputs_of(model, double(cohort.batch([i])))) for i in range(5)])
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed)).tolist()
    together = said(outputs_of(model, double(cohort.batch(order, extra=extra))))
    assert torch.allclose(together, alone[order], atol=1e-9)
    single = said(outputs_of(model.float(), cohort.batch(order, extra=extra)))
    assert torch.allclose(single.double(), alone[order], atol=1e-5, rtol=1e-5)


@every_model
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), junk=st.sampled_from([math.nan, math.inf, 1e30, -7.0]))
def test_what_is_not_there_is_not_read(name, seed, junk):
    study = study_of(name)
    model = random_model(study, seed)
    batch = Cohort(study, 4, seed=seed, missing=0.5).batch(range(4), extra=2)
    clean = said(outputs_of(model, batch))
    for feature, present in batch.present.items():
        there = (batch.mask[feature] & present[:, None])[..., None]
        batch.tokens[feature] = torch.where(there, batch.tokens[feature], junk)
        batch.mask[feature] = batch.mask[feature] | ~present[:, None]
    assert torch.equal(said(outputs_of(model, batch)), clean)
    assert torch.isfinite(clean).all()


@every_model
def test_a_missing_modality_gets_an_exactly_zero_gradient(name):
    study = study_of(name)
    model = random_model(study)
    cohort = Cohort(study, 6, seed=3, missing=0.0)
    cohort.seen = {task: seen | True for task, seen in cohort.seen.items()}
    blocks = {block_of(n) for n, _ in model.named_parameters()} & set(MODALITIES)
    for absent in sorted(blocks):
        batch = cohort.batch([0])
        for feature, spec in study.features.items():
            if spec.modality == absent:
                batch.present[feature] = torch.tensor([False])
        model.zero_grad()
        loss = PatientObjective(model, study)(model.prepare(batch))
        loss.sum().backward()
        for parameter_name, parameter in model.named_parameters():
            gradient = parameter.grad
            if block_of(parameter_name) == absent:
                assert gradient is None or (gradient == 0).all(), parameter_name
            elif gradient is not None:
                assert torch.isfinite(gradient).all(), parameter_name
        assert any(
            p.grad is not None and (p.grad != 0).any()
            for n, p in model.named_parameters()
            if block_of(n) == "heads"
        )


@every_model
def test_an_untrained_model_says_the_published_baseline(name):
    study = study_of(name)
    outputs = outputs_of(build_model(study), Cohort(study, 6).batch(range(6)))
    assert torch.sigmoid(outputs.response_logit).tolist() == pytest.approx([0.3] * 6, abs=1e-6)
    hazards = torch.sigmoid(outputs.hazard_logits)
    assert hazards.tolist() == [pytest.approx(study.endpoints.survival.hazards, abs=1e-6)] * 6


@every_model
def test_attention_sums_to_one_over_real_tokens(name):
    study = study_of(name)
    batch = Cohort(study, 8, seed=5).batch(range(8), extra=1)
    outputs = outputs_of(random_model(study), batch)
    for feature, weights in outputs.attention.items():
        here = batch.present[feature]
        assert weights.shape == batch.mask[feature].shape
        assert (weights[~batch.mask[feature]] == 0).all()
        assert weights.sum(1)[here].tolist() == pytest.approx([1.0] * int(here.sum()), abs=1e-5)
        assert (weights[~here] == 0).all()


@every_model
def test_initial_weights_follow_from_the_public_seed_alone(name):
    study = study_of(name)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build_model(study)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = build_model(study)
    for (name_1, p), (name_2, q) in zip(
        first.named_parameters(), second.named_parameters(), strict=True
    ):
        assert name_1 == name_2
        assert torch.equal(p, q)
        assert block_of(name_1) in BLOCKS


@every_model
def test_the_model_keeps_patients_apart(name):
    check_private(build_model(study_of(name)))


@every_model
@pytest.mark.parametrize("task", ["response", "survival"])
def test_a_study_with_one_task_works(name, task):
    data = study_of(name).model_dump()
    data["endpoints"]["response" if task == "survival" else "survival"] = None
    study = type(study_of(name)).model_validate(data)
    outputs = outputs_of(build_model(study), Cohort(study, 3).batch(range(3)))
    assert outputs.response_logit.shape == (3,)
    assert outputs.hazard_logits.shape == (3, study.n_intervals)
