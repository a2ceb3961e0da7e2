"""Local training without privacy."""

import numpy as np
import pytest
import torch
from random_patients import SMALL_MODELS, Cohort, make_study

from client.data.patient_source import block_weights
from client.data.training_batches import batch_order, drop_modalities
from client.training.train import train_epochs
from common.errors import DataError
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays, to_arrays, trainable
from common.models.losses.multitask import PatientObjective

CPU = torch.device("cpu")


def plan(**local):
    return {"local": {"kind": "epochs", "batch_size": 8, **local}}


def run(study, cohort, round=1):
    return train_epochs(build_model(study), cohort, study, round=round, device=CPU)


@pytest.mark.parametrize("name", sorted(SMALL_MODELS))
@pytest.mark.parametrize("optimizer", ["adamw", "radam"])
def test_the_same_round_is_the_same_bit_by_bit(name, optimizer):
    training = plan(epochs=2, optimizer=optimizer, lr=1e-2, modality_dropout=0.3)
    study = make_study(name, training=training, **SMALL_MODELS[name])
    cohort = Cohort(study, 20)
    torch.manual_seed(0)
    first = run(study, cohort)
    torch.manual_seed(1)
    second = run(study, cohort)
    other_round = run(study, cohort, round=2)
    assert first.loss == second.loss
    for parameter, delta in first.delta.items():
        assert delta.dtype == np.float32
        assert np.array_equal(delta, second.delta[parameter])
    assert any((first.delta[p] != other_round.delta[p]).any() for p in first.delta)


def test_one_full_batch_step_of_sgd_is_the_mean_gradient():
    study = make_study(
        "linear",
        training=plan(steps=1, batch_size=64, optimizer="sgd", lr=0.5) | {"weight_decay": 0},
    )
    cohort = Cohort(study, 20)
    model = build_model(study)
    losses = PatientObjective(model, study)(model.prepare(cohort.batch(range(20))))
    losses.mean().backward()
    result = run(study, cohort)
    for name, parameter in model.named_parameters():
        assert result.delta[name] == pytest.approx(-0.5 * parameter.grad.numpy(), abs=1e-6)
    assert result.loss == pytest.approx(losses.mean().item(), rel=1e-5)


@pytest.mark.parametrize(("local", "expected"), [({"epochs": 2}, 6), ({"steps": 4}, 4)])
def test_epochs_and_steps_give_the_stated_number_of_batches(local, expected):
    study = make_study("linear", training=plan(optimizer="sgd", **local))
    seen = list(batch_order(20, study.training.local, torch.Generator().manual_seed(0)))
    assert len(seen) == expected
    assert run(study, Cohort(study, 20)).steps == expected
    if "epochs" in local:
        assert sorted(i for part in seen[:3] for i in part) == list(range(20))


def test_batches_kept_over_rounds_are_those_prepared_anew(monkeypatch):
    study = make_study("linear", training=plan(optimizer="sgd", lr=0.1, epochs=2))
    cohort = Cohort(study, 20)
    kept = run(study, cohort)
    monkeypatch.setattr("common.models.systems.linear.LinearHeads.uniform_shape", False)
    anew = run(study, cohort)
    for name, delta in anew.delta.items():
        np.testing.assert_allclose(kept.delta[name], delta, atol=1e-6)


def test_the_proximal_term_pulls_towards_the_global_model():
    cohort = Cohort(make_study("linear"), 20)

    def distance(mu: float) -> float:
        local = plan(epochs=20, optimizer="sgd", lr=0.05, proximal_mu=mu)
        delta = run(make_study("linear", training=local), cohort).delta
        return float(sum((array**2).sum() for array in delta.values()) ** 0.5)

    assert distance(10.0) < 0.5 * distance(0.0)


def test_one_proximal_step_is_the_gradient_of_half_mu_squared_distance():
    local = plan(steps=2, batch_size=64, optimizer="sgd", lr=0.1, proximal_mu=2.0)
    study = make_study("linear", training=local | {"weight_decay": 0})
    cohort, model = Cohort(study, 20), build_model(make_study("linear"))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        losses = PatientObjective(model, study)(model.prepare(cohort.batch(range(20))))
        distance = sum(((p - start[name]) ** 2).sum() for name, p in model.named_parameters())
        gradients = torch.autograd.grad(losses.mean() + distance, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    result = run(study, cohort)
    for name, parameter in model.named_parameters():
        moved = (parameter - start[name]).detach().numpy()
        assert result.delta[name] == pytest.approx(moved, abs=1e-6)


def test_weights_count_the_patients_behind_each_block():
    study = make_study("moemil", size="small")
    cohort = Cohort(study, 30, missing=0.5)
    weights = block_weights(build_model(study), cohort)
    for modality in study.modalities:
        names = [n for n, spec in study.features.items() if spec.modality == modality]
        has = [any(one[name] is not None for name in names) for one in cohort.tokens]
        assert weights[modality] == sum(has)
    assert weights["fusion"] == weights["heads"] == 30


def test_modality_dropout_hides_whole_modalities_at_its_rate_and_never_all():
    study = make_study("linear")
    cohort = Cohort(study, 4000, missing=0.4)
    batch = cohort.batch(range(4000))
    model = build_model(study)
    dropped = drop_modalities(batch, model, 0.3, torch.Generator().manual_seed(0))
    had = torch.stack(list(batch.present.values()))
    has = torch.stack([dropped.present[name] for name in batch.present])
    assert not (has & ~had).any()
    assert (has.any(0) == had.any(0)).all()
    both = batch.present["slices"] & batch.present["radiomics"]
    assert (dropped.present["slices"] == dropped.present["radiomics"])[both].all()
    full = had.all(0)
    rate = 1 - dropped.present["tiles"][full].float().mean().item()
    assert rate == pytest.approx(0.3, abs=0.1)


def test_dropping_almost_everything_keeps_one_modality_chosen_evenly():
    study = make_study("linear")
    batch = Cohort(study, 2000, missing=0.0).batch(range(2000))
    generator = torch.Generator().manual_seed(0)
    dropped = drop_modalities(batch, build_model(study), 0.999999, generator)
    shares = [dropped.present[n].float().mean().item() for n in ("tiles", "slices", "table")]
    assert shares == pytest.approx([0.25] * 3, abs=0.04)


def test_loss_that_explodes_is_an_error_that_says_what_to_change():
    study = make_study("linear", training=plan(optimizer="sgd", lr=1e38, epochs=3))
    with pytest.raises(DataError, match="not finite") as caught:
        run(study, Cohort(study, 20))
    assert "lr" in caught.value.cure


def test_no_patient_is_an_error():
    study = make_study("linear", training=plan())
    with pytest.raises(DataError, match="no training patient"):
        run(study, Cohort(study, 3).select([]))


def _signal(cohort, rng):
    """Response and survival follow the clinical table's first column and the mean tile."""
    score = np.zeros(len(cohort))
    for i, one in enumerate(cohort.tokens):
        score[i] = 3.0 * one["table"][0, 0]
        one["tiles"] += np.float32(score[i] * 0.5)
    cohort.response = (rng.random(len(cohort)) < 1 / (1 + np.exp(-score))).astype(np.float32)
    cohort.time = rng.exponential(40 * np.exp(score / 2)).astype(np.float32)
    cohort.event = np.ones(len(cohort), np.float32)


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    positive, negative = scores[labels == 1], scores[labels == 0]
    return float((positive[:, None] > negative[None]).mean())


QUICK_TO_TRAIN = {"linear", "clinical_linear", "moemil", "abmil"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK_TO_TRAIN else [pytest.mark.slow])
        for name in sorted(SMALL_MODELS)
    ],
)
def test_every_model_learns_a_planted_signal(name):
    training = plan(epochs=12, lr=5e-3, modality_dropout=0.1)
    study = make_study(name, training=training, **SMALL_MODELS[name])
    cohort = Cohort(study, 150, missing=0.0, signal=_signal)
    fresh = Cohort(study, 200, seed=1, missing=0.0, signal=_signal)
    model = build_model(study)
    start = to_arrays(model)
    result = train_epochs(model, cohort, study, round=1, device=CPU)
    with torch.no_grad():
        outputs = model(fresh.batch(range(200)))
    early = (fresh.time < np.median(fresh.time)).astype(int)
    risk = outputs.hazard_logits.sum(1).numpy()
    assert _auc(outputs.response_logit.numpy(), fresh.response) > 0.75
    assert _auc(risk, early) > 0.7
    load_arrays(model, {p: start[p] + result.delta[p] for p in trainable(model)})
    with torch.no_grad():
        again = model(fresh.batch(range(200)))
    assert torch.allclose(again.response_logit, outputs.response_logit, atol=1e-5)
