"""A hospital predicts with what it kept for itself, and never with a half-trained model."""

import json

import numpy as np
import pytest
from small_site import site_study, write_model, write_small_site

from client.agent.accepted_run import AcceptedRun, remember_run
from client.predict.predict_command import predict_patients
from client.site.site_folder import load_policy
from client.training.site_memory import SiteMemory
from common.contract import canonical_json
from common.errors import ConfigError, DataError, ProtocolError
from common.study.site_policy import Approval

EPOCHS = {"kind": "epochs", "optimizer": "sgd", "lr": 0.5, "epochs": 3, "batch_size": 2}


def study_of(**training):
    return site_study(training={"local": EPOCHS, **training}, privacy={"mode": "none"})


@pytest.fixture
def place(tmp_path):
    write_small_site(tmp_path / "hospital-a", n_tiles=4)
    return tmp_path


def took_part(place, study):
    """A policy that approved the study, the run's record, and the model file."""
    policy = load_policy(place / "hospital-a").model_copy(
        update={
            "approvals": [
                Approval(
                    study_digest=study.digest(), epsilon_ceiling=9, evaluation_epsilon_ceiling=20
                )
            ],
            "allowed_modes": ["none"],
            "minimum_cohort": 1,
        }
    )
    text = canonical_json(study.model_dump(mode="json"))
    remember_run(policy, AcceptedRun(run_id="run-1", study_digest=study.digest(), study_json=text))
    model = write_model(study, place / "run")
    record = model.with_suffix(".json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "run_id": "run-1"}))
    return policy, model


def risks(policy, study, model):
    return np.array([p.risk for p in predict_patients(policy, study, model).predictions])


def test_parameters_that_stayed_here_are_used(place):
    study = study_of(stay_local=["heads.hazard_bias"])
    policy, model = took_part(place, study)
    memory = SiteMemory(policy.state / "memory" / "run-1")
    found = []
    for value in (-4.0, 1.0):
        bias = {"heads.hazard_bias": np.full(4, value, np.float32)}
        memory.keep("stay_local", 1, {}, bias)
        found.append(risks(policy, study, model))
    assert (found[1] > found[0] + 0.5).all()


def test_without_them_nothing_is_predicted(place):
    study = study_of(stay_local=["heads.hazard_bias"])
    policy, model = took_part(place, study)
    with pytest.raises(DataError, match="no parameters of its own"):
        risks(policy, study, model)


def test_personal_model_is_trained_on_here(place):
    study = study_of(personal={"kind": "fine_tune", "local": EPOCHS})
    policy, model = took_part(place, study)
    own = risks(policy, study, model)
    plain = study_of()
    write_model(plain, place / "plain")
    assert np.abs(own - risks(policy, plain, place / "plain")).max() > 0.01


def test_unknown_run_is_refused(place):
    study = study_of(stay_local=["heads.*"])
    policy, model = took_part(place, study)
    record = model.with_suffix(".json")
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "run_id": "run-2"}))
    with pytest.raises(ProtocolError, match="does not know the run"):
        risks(policy, study, model)
    record.write_text(json.dumps({k: v for k, v in told.items() if k != "run_id"}))
    with pytest.raises(ConfigError, match="does not name its run"):
        risks(policy, study, model)
