"""The linear model is the sum of linear maps of pooled features."""

import numpy as np
import pytest
import torch
from random_patients import Cohort, make_study, random_model

from common.errors import ConfigError
from common.models.base.build import build_model


def pooled(study, cohort, patient, name):
    spec, bag = study.features[name], cohort.tokens[patient][name]
    if bag is None:
        return np.zeros(spec.pooled_dim)
    return {
        "mean": lambda: bag.mean(0),
        "flatten": lambda: bag.ravel(),
        "row_mean": lambda: bag.mean(1),
    }[spec.pool]()


@pytest.mark.parametrize("per_interval", [False, True])
@pytest.mark.parametrize("flags", [False, True])
def test_outputs_are_sums_of_products(per_interval, flags):
    study = make_study("linear", per_interval=per_interval, presence_flags=flags)
    cohort = Cohort(study, 5, seed=4)
    model = random_model(study)
    outputs = model(cohort.batch(range(5)))
    weights = {n: p.detach().numpy().astype(float) for n, p in model.named_parameters()}
    for patient in range(5):
        scores = 0.0
        for name, spec in study.features.items():
            row = pooled(study, cohort, patient, name)
            if flags:
                row = np.append(row, cohort.tokens[patient][name] is not None)
            scores = scores + weights[f"{spec.modality}.{name}.weight"] @ row
        response = scores[0] + weights["heads.response_bias"][0]
        hazards = scores[1:] + weights["heads.hazard_bias"]
        assert outputs.response_logit[patient].item() == pytest.approx(response, abs=1e-5)
        assert outputs.hazard_logits[patient].tolist() == pytest.approx(hazards, abs=1e-5)


def test_proportional_hazards_share_one_score():
    study = make_study("linear")
    model = random_model(study)
    hazards = model(Cohort(study, 6).batch(range(6))).hazard_logits
    shift = hazards - model.heads["hazard_bias"]
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-6)


def test_pooled_norm_bounds_long_rows_only():
    study = make_study("linear", pooled_norm=1.0, presence_flags=False)
    cohort = Cohort(study, 5, missing=0.0)
    prepared = build_model(study).prepare(cohort.batch(range(5)))
    for name in study.features:
        for patient in range(5):
            row = pooled(study, cohort, patient, name)
            expected = row / max(1.0, float(np.linalg.norm(row)))
            assert prepared.tokens[name][patient, 0].numpy() == pytest.approx(expected, abs=1e-6)


def test_gain_is_a_public_factor():
    study = make_study("linear", gain={"table": 0.5}, presence_flags=False)
    plain = make_study("linear", presence_flags=False)
    batch = Cohort(study, 3, missing=0.0).batch(range(3))
    scaled = build_model(study).prepare(batch).tokens
    unscaled = build_model(plain).prepare(batch).tokens
    assert torch.allclose(scaled["table"], 0.5 * unscaled["table"])
    assert torch.equal(scaled["tiles"], unscaled["tiles"])
    with pytest.raises(ConfigError, match="unknown feature sets"):
        build_model(make_study("linear", gain={"nothing": 1.0}))


def test_pathways_are_averaged_over_their_own_genes():
    sizes = [4, 1, 2, 3, 4]
    study = make_study("linear", pathway_sizes={"pathways": sizes}, presence_flags=False)
    cohort = Cohort(study, 2, missing=0.0)
    for one in cohort.tokens:
        for row, size in enumerate(sizes):
            one["pathways"][row, size:] = 0
    rows = build_model(study).prepare(cohort.batch([0, 1])).tokens["pathways"]
    for patient in range(2):
        genes = cohort.tokens[patient]["pathways"]
        expected = [genes[row, :size].mean() for row, size in enumerate(sizes)]
        assert rows[patient, 0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "sizes", [{"pathways": [1, 2]}, {"pathways": [0, 1, 1, 1, 1]}, {"table": [1]}, {"none": [1]}]
)
def test_pathway_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError, match=r"do not fit its rows|unknown feature sets"):
        build_model(make_study("linear", pathway_sizes=sizes))


def test_the_floor_reads_clinical_features_only():
    model = build_model(make_study("clinical_linear"))
    assert {spec.modality for spec in model.features.values()} == {"clinical"}


def test_a_study_without_clinical_features_has_no_floor():
    features = {"tiles": {"modality": "pathology", "dim": 3}}
    with pytest.raises(ConfigError, match="nothing to read"):
        build_model(make_study("clinical_linear", features=features))
