"""Integrated gradients against what they are where that is known in closed form."""

import dataclasses

import numpy as np
import pytest
import torch
from random_patients import FEATURES, Cohort, make_study, random_model

from client.explain import attribution as module
from client.explain.attribution import attribute, contributions, shares
from client.training.train import train_epochs
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays, to_arrays
from common.models.losses.discrete_time import survival_curve

MOEMIL = {"size": "small", "instance_patches": 2}


def patients(study, n=6, missing=0.0):
    cohort = Cohort(study, n, seed=5, missing=missing)
    return [cohort.batch([i]) for i in range(n)]


def weights(model, feature, spec, output):
    modality = spec.modality
    return model.get_submodule(f"{modality}.{feature}").weight[output].detach().double().numpy()


def test_of_a_linear_model_is_weight_times_input():
    study = make_study("linear")
    model = random_model(study)
    for batch in patients(study, n=3):
        found = attribute(model, batch, "response")
        assert set(found.inputs) == set(FEATURES)
        for name, spec in study.features.items():
            tokens = batch.tokens[name][0].double().numpy()
            weight = weights(model, name, spec, 0)[: spec.pooled_dim]
            expected = {
                "mean": tokens * weight / len(tokens) if spec.pool == "mean" else None,
                "flatten": tokens * np.resize(weight, (spec.max_tokens, spec.dim))[: len(tokens)]
                if spec.pool == "flatten"
                else None,
                "row_mean": tokens * weight[: len(tokens), None] / spec.dim
                if spec.pool == "row_mean"
                else None,
            }[spec.pool]
            np.testing.assert_allclose(found.inputs[name], expected, rtol=2e-5, atol=2e-7)


def test_explains_the_logit_and_the_risk():
    study = make_study("linear")
    model, batch = random_model(study), patients(study, n=1)[0]
    mean = dataclasses.replace(
        batch, tokens={name: torch.zeros_like(value) for name, value in batch.tokens.items()}
    )
    with torch.no_grad():
        here, there = model(batch), model(mean)
    response = attribute(model, batch, "response")
    assert response.output == pytest.approx(float(here.response_logit))
    assert response.baseline == pytest.approx(float(there.response_logit))
    survival = attribute(model, batch, "survival")
    assert survival.output == pytest.approx(-float(survival_curve(here.hazard_logits).sum()))
    assert survival.baseline == pytest.approx(-float(survival_curve(there.hazard_logits).sum()))


def test_of_a_linear_model_adds_up_exactly():
    study = make_study("linear")
    model = random_model(study)
    for batch in patients(study, missing=0.3):
        found = attribute(model, batch, "response", most_steps=64)
        added = sum(contributions(found, study.features).values())
        assert added == pytest.approx(found.output - found.baseline, abs=1e-5)
        assert found.completeness_error < 1e-3


def test_adds_up_for_the_risk_of_a_linear_model():
    study = make_study("linear")
    model = random_model(study)
    for batch in patients(study):
        found = attribute(model, batch, "survival", most_steps=64)
        assert found.completeness_error < 1e-3


def follows_features(cohort, rng):
    """Response and survival from the clinical vector, the tiles and the pathways."""
    bags = [[one[n] for n in ("table", "tiles", "pathways")] for one in cohort.tokens]
    score = np.array([sum(b[..., 0].mean() for b in bag if b is not None) for bag in bags])
    cohort.response = (rng.random(len(bags)) < 1 / (1 + np.exp(-3 * score))).astype(np.float32)
    cohort.time = rng.exponential(20 * np.exp(1.5 * score)).clip(0.1, 90).astype(np.float32)
    cohort.event = np.ones(len(bags), np.float32)


def test_64_steps_suffice_for_a_trained_small_moemil():
    """A ReLU network's gradient jumps, so the error falls as 1 / steps; most need no more."""
    local = {"kind": "epochs", "epochs": 5, "lr": 1e-2, "batch_size": 8}
    few = {name: FEATURES[name] for name in ("table", "tiles", "pathways")}
    study = make_study("moemil", features=few, training={"local": local}, **MOEMIL)
    cohort = Cohort(study, 24, seed=1, missing=0.2, signal=follows_features)
    model = build_model(study)
    start = to_arrays(model)
    trained = train_epochs(model, cohort, study, round=1, device=torch.device("cpu"))
    load_arrays(model, {name: start[name] + trained.delta[name] for name in start})
    errors = []
    for index in range(3):
        for task in study.tasks:
            found = attribute(model, cohort.batch([index]), task, steps=64, most_steps=64)
            errors.append(found.completeness_error)
            refined = attribute(model, cohort.batch([index]), task)
            added = sum(contributions(refined, study.features).values())
            assert added == pytest.approx(refined.output - refined.baseline, rel=0.05, abs=0.01)
            assert refined.readable
    assert np.median(errors) < 0.02
    assert np.mean(np.array(errors) < 0.05) >= 0.9


def gross(found):
    return sum(float(np.abs(values).sum()) for values in found.inputs.values())


def test_more_steps_are_taken_where_few_do_not_suffice():
    study = make_study("moemil", **MOEMIL)
    model = random_model(study, 1, scale=0.6)
    batch = patients(study, n=1)[0]
    few = attribute(model, batch, "response", steps=2, most_steps=2)
    many = attribute(model, batch, "response", steps=2, most_steps=512)
    assert not few.readable
    assert few.steps == 2
    assert many.readable
    assert many.steps > 2


def test_a_model_that_says_the_same_of_everybody_is_attributed_nothing():
    study = make_study("moemil", **MOEMIL)
    model = build_model(study)  # its last weights are zero
    for task in study.tasks:
        found = attribute(model, patients(study, n=1)[0], task)
        assert found.output == found.baseline
        assert found.completeness_error == 0.0
        assert set(contributions(found, study.features).values()) == {0.0}
        assert set(shares(found, study.features).values()) == {0.0}


def test_a_patient_next_to_the_mean_is_not_blown_up():
    """Contributions that cancel: the error is measured against what cancelled."""
    study = make_study("linear")
    model = random_model(study)
    batch = patients(study, n=1)[0]
    gap = attribute(model, batch, "response")
    table = batch.tokens["table"]
    weight = torch.tensor(weights(model, "table", study.features["table"], 0)[:3])
    shift = (gap.output - gap.baseline) / float(weight @ weight) * weight
    batch.tokens["table"] = table - shift.float()
    near = attribute(model, batch, "response")
    assert abs(near.output - near.baseline) < 1e-5
    assert near.readable


def test_shares_are_of_the_absolute_attribution():
    study = make_study("linear")
    model = random_model(study)
    found = attribute(model, patients(study, n=1)[0], "response")
    share = shares(found, study.features)
    assert sum(share.values()) == pytest.approx(1)
    clinical = sum(float(np.abs(found.inputs[n]).sum()) for n in ("table", "prompts"))
    assert share["clinical"] == pytest.approx(clinical / gross(found))


def test_only_what_the_patient_has_and_the_model_reads_is_attributed():
    study = make_study("clinical_linear")
    batch = patients(study, n=1)[0]
    batch.present["prompts"][:] = False
    found = attribute(random_model(study), batch, "response")
    assert set(found.inputs) == {"table"}
    batch.present["table"][:] = False
    nothing = attribute(random_model(study), batch, "response")
    assert nothing.inputs == {}
    assert nothing.output == nothing.baseline
    assert shares(nothing, study.features) == {}


def test_does_not_depend_on_how_many_steps_are_computed_at_once(monkeypatch):
    study = make_study("moemil", **MOEMIL)
    model, batch = random_model(study), patients(study, n=1)[0]
    together = attribute(model, batch, "survival", steps=12, most_steps=12)
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 1)
    alone = attribute(model, batch, "survival", steps=12, most_steps=12)
    for name, values in together.inputs.items():
        np.testing.assert_allclose(alone.inputs[name], values, rtol=1e-4, atol=1e-7)


def test_tokens_are_sums_over_columns():
    study = make_study("linear")
    found = attribute(random_model(study), patients(study, n=1)[0], "response")
    assert found.tokens("tiles").dtype == np.float64
    np.testing.assert_allclose(found.tokens("tiles"), found.inputs["tiles"].sum(axis=1), rtol=1e-5)
