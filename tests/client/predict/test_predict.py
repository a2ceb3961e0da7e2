"""Predictions against the closed forms of what the model returns."""

import json

import numpy as np
import pytest
import torch
from random_patients import make_study, random_model

from client.data.dataset import PatientDataset
from client.predict.predict import curve_months, predict
from common.study.modalities import MODALITIES

NAN = float("nan")


def cohort(study, lacking=(), n=3):
    rng = np.random.default_rng(2)
    features = {}
    for name, spec in study.features.items():
        bags = [rng.normal(size=(spec.max_tokens, spec.dim)) for _ in range(n)]
        features[name] = [None if name in lacking else bag for bag in bags]
    ids = [f"p{k}" for k in range(n)]
    return PatientDataset.from_arrays(study, ids, features, [NAN] * n, [NAN] * n, [NAN] * n)


@pytest.mark.parametrize("model_name", ["linear", "moemil"])
def test_survival_is_the_product_of_the_hazards(model_name):
    options = {"size": "small", "instance_patches": 2} if model_name == "moemil" else {}
    study = make_study(model_name, **options)
    model, dataset = random_model(study, scale=0.2), cohort(study)
    edges = study.endpoints.survival.edges_months
    for index, found in enumerate(predict(model, dataset, study)):
        with torch.no_grad():
            outputs = model(dataset.batch([index]))
        hazards = torch.sigmoid(outputs.hazard_logits[0]).double().numpy()
        alive = np.cumprod(1 - hazards)
        curve = dict(zip(found.months, found.survival, strict=True))
        assert curve[0.0] == 1.0
        for edge, expected in zip(edges[1:], alive, strict=False):
            assert curve[edge] == pytest.approx(expected, rel=1e-5)
        assert found.at_horizons[12.0] == pytest.approx(curve[12.0])
        assert found.risk == pytest.approx(-alive.sum(), rel=1e-5)
        probability = 1 / (1 + np.exp(-float(outputs.response_logit)))
        assert found.response_probability == pytest.approx(probability, rel=1e-5)
        assert (np.diff(found.survival) <= 0).all()


def test_the_curve_is_monthly_and_reaches_the_last_horizon():
    study = make_study()
    assert curve_months(study) == tuple(float(m) for m in range(61))
    late = study.endpoints.survival.model_copy(update={"horizons_months": [12.0, 72.5]})
    ends = study.endpoints.model_copy(update={"survival": late})
    assert curve_months(study.model_copy(update={"endpoints": ends}))[-1] == 73.0


def test_only_endpoints_of_the_study_are_predicted():
    study = make_study()
    ends = study.endpoints.model_copy(update={"survival": None})
    only_response = study.model_copy(update={"endpoints": ends})
    found = predict(random_model(only_response), cohort(only_response), only_response)[0]
    assert (found.risk, found.survival, found.months) == (None, (), ())
    assert found.response_probability is not None
    ends = study.endpoints.model_copy(update={"response": None})
    only_survival = study.model_copy(update={"endpoints": ends})
    found = predict(random_model(only_survival), cohort(only_survival), only_survival)[0]
    assert found.response_probability is None
    assert found.risk is not None


def test_missing_means_what_the_model_reads_and_the_patient_lacks():
    study = make_study()
    found = predict(random_model(study), cohort(study, {"slices", "pathways"}), study)[0]
    assert found.present == tuple(m for m in MODALITIES if m != "genomics")
    assert found.missing == ("genomics",)
    assert set(found.missing_features) == {"slices", "pathways"}
    clinical = make_study("clinical_linear")
    found = predict(random_model(clinical), cohort(clinical, {"tiles"}), clinical)[0]
    assert (found.present, found.missing, found.missing_features) == (("clinical",), (), ())


def test_a_patient_alone_is_predicted_as_among_others():
    study = make_study("moemil", size="small", instance_patches=2)
    model, dataset = random_model(study, scale=0.2), cohort(study)
    together = predict(model, dataset, study)
    assert predict(model, dataset.select([1]), study) == together[1:2]


def test_is_plain_json():
    study = make_study()
    plain = predict(random_model(study), cohort(study), study)[0].as_dict()
    read = json.loads(json.dumps(plain, allow_nan=False))
    assert set(read["at_horizons"]) == {"12", "36", "60"}
    assert len(read["months"]) == len(read["survival"]) == 61
