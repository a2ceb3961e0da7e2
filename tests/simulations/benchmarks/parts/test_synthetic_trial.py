import numpy as np
import pytest

from simulations.benchmarks.parts import synthetic_trial
from simulations.benchmarks.parts.synthetic_trial import ARMS, arm_study, draw_trial, run_arm

PATIENTS = 30


@pytest.fixture
def trial():
    return draw_trial(5, 3, PATIENTS)


def test_nobody_is_both_trained_on_and_tested(trial):
    assert not set(trial.train.patient_ids) & set(trial.test.patient_ids)
    assert len(trial.train) + len(trial.test) == sum(site.patients for site in trial.spec.sites)
    assert 0.1 < len(trial.test) / (len(trial.train) + len(trial.test)) < 0.4


def test_the_oracle_stands_beside_its_own_patient(trial):
    assert trial.truth["patient_id"].tolist() == trial.test.patient_ids
    np.testing.assert_array_equal(trial.truth["time_months"], trial.test.time_months)
    np.testing.assert_array_equal(trial.truth["response"], trial.test.response)
    lacking = ~trial.truth["has_genomics"].to_numpy()
    bags = trial.test.features["pathways"]
    assert [bag is None for bag in bags] == lacking.tolist()


@pytest.mark.parametrize("arm", ARMS)
def test_studies_differ_in_what_the_arm_says_and_nothing_else(trial, arm):
    groups = trial.train.by_hospital()
    study, fused = arm_study(trial.spec, arm, groups), arm_study(trial.spec, "fused", groups)
    assert study.endpoints == fused.endpoints
    assert [site.site_id for site in study.sites] == sorted(groups)
    assert study.training.test_fraction == 0.0
    assert study.training.nominal_patients == len(trial.train)
    assert study.privacy.is_private is (arm == "private")
    if arm == "private":
        assert (study.privacy.mode, study.privacy.epsilon) == ("local", 8.0)
        linear = arm_study(trial.spec, "linear", groups)
        assert study.model == linear.model
        assert study.training == linear.training
    elif arm in ("pathology", "radiology", "genomics", "clinical"):
        assert study.modalities == (arm,)
        assert (study.model, study.training) == (fused.model, fused.training)
    else:
        assert study.features == fused.features


def test_one_modality_trains_where_there_is_one(trial, tmp_path):
    scores = run_arm(trial, "genomics", tmp_path, rounds=1)
    assert {path.name for path in (tmp_path / "genomics" / "sites").iterdir()} == {
        "synthetic-alder",
        "synthetic-cedar",
    }
    assert np.isfinite(scores.risk).all()
    lacking = np.array([bag is None for bag in trial.test.features["pathways"]])
    assert len(np.unique(scores.response[lacking])) == 1
    assert len(np.unique(scores.response[~lacking])) > 1


def test_alone_every_hospital_scores_its_own_patients(trial, tmp_path):
    scores = run_arm(trial, "alone", tmp_path, rounds=1)
    assert np.isfinite(scores.response).all()
    for site, own in trial.test.by_hospital().items():
        here = trial.test.hospital == site
        single = synthetic_trial.SyntheticTrial(
            spec=trial.spec, train=trial.train.by_hospital()[site], test=own, truth=trial.truth
        )
        expected = run_arm(single, "fused", tmp_path / "again" / site, rounds=1)
        np.testing.assert_array_equal(scores.risk[here], expected.risk)
