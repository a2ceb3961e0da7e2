"""Whom a hospital predicts, with which model, and what it says of the rest."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_site import site_study, write_model, write_small_site

from client.data.split import is_held_out, load_or_create_split_key
from client.predict.predict_command import predict_patients, training_role
from client.predict.trained_model import load_trained_model
from client.site.approval import make_approval
from client.site.identity import create_identity
from client.site.site_folder import load_policy, record_consent
from common.cohort.manifest import read_manifest
from common.errors import ConfigError, DataError, ErrorCode

STUDY = site_study("linear")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_small_site(tmp_path / "hospital-a", n_tiles=4)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(STUDY, tmp_path / "run")


def run(site: Path, model: Path, study=STUDY, patients=None):
    return predict_patients(load_policy(site), study, model, patients)


def test_patients_without_an_outcome_are_predicted(site, model):
    done = run(site, model)
    assert [p.patient_id for p in done.predictions] == ["P1", "P2", "P3", "P4"]
    assert done.left_out == {}
    assert done.model_recorded


def test_missing_modalities_are_named_with_the_reason(site, model):
    done = run(site, model)
    assert done.why_missing("P1") == {}
    assert done.why_missing("P3") == {"genomics": "in the manifest, but no features extracted"}
    assert done.why_missing("P4") == {
        "pathology": "nothing in the manifest",
        "genomics": "nothing in the manifest",
    }


def test_patients_on_whom_nothing_rests_are_left_out_with_the_reason(site, model, tmp_path):
    (site / "features/table/P4.h5").unlink()
    done = run(site, model)
    assert [p.patient_id for p in done.predictions] == ["P1", "P2", "P3"]
    assert done.left_out == {"P4": "in the manifest, but no features extracted"}
    with pytest.raises(DataError, match="no features to predict from: P4"):
        run(site, model, patients=["P1", "P4"])
    # P3 has slides, which this model does not read.
    (site / "features/table/P3.h5").unlink()
    clinical = site_study("clinical_linear")
    narrow = write_model(clinical, tmp_path / "clinical")
    assert set(run(site, narrow, clinical).left_out) == {"P3", "P4"}


def test_predictions_are_read_as_a_frame(site, model):
    done = run(site, model)
    frame = done.frame.set_index("patient_id")
    assert list(frame.index) == ["P1", "P2", "P3", "P4"]
    for prediction in done.predictions:
        row = frame.loc[prediction.patient_id]
        assert row["response_probability"] == prediction.response_probability
        assert row["risk"] == prediction.risk
        for month, alive in prediction.at_horizons.items():
            assert row[f"alive_{month:g}"] == alive
    assert frame.loc["P4", "missing"] == "pathology, genomics"
    assert set(frame["role"]) == {"unknown"}


def test_named_patients_are_compared_with_all(site, model):
    done = run(site, model, patients=["P3", "P1", "P3"])
    assert [p.patient_id for p in done.predictions] == ["P3", "P1"]
    assert len(done.cohort) == 4


def test_an_unknown_patient_is_refused_before_anything_is_computed(site, model):
    with pytest.raises(DataError, match="no such patient: P9, Q"):
        run(site, model, patients=["P1", "P9", "Q"])


def test_roles_follow_the_split_of_training(site):
    manifest = read_manifest(site / "manifest.csv")
    policy = load_policy(site)
    roles = {row.patient_id: training_role(row, policy, STUDY) for row in manifest.rows}
    assert set(roles.values()) == {"unknown"}
    assert not policy.split_key_file.exists()
    create_identity(policy.identity_key)
    record_consent(
        policy,
        make_approval(policy, STUDY, announced=None, epsilon=None, fallback_epsilon=None),
    )
    key = load_or_create_split_key(policy.split_key_file)
    policy = load_policy(site)
    for row in manifest.rows:
        held_out = is_held_out(row.patient_id, key, STUDY.training.test_fraction)
        expected = "held out" if held_out else "training"
        role = training_role(row, policy, STUDY)
        assert role == ("no outcome" if row.patient_id == "P2" else expected)
    assert training_role(manifest.rows[0], policy, site_study("moemil")) == "unknown"


class TestModelFile:
    def test_the_folder_of_a_run_will_do(self, model):
        assert load_trained_model(STUDY, model.parent).recorded

    def test_a_model_of_another_study_is_refused(self, model):
        with pytest.raises(ConfigError, match="another study") as refused:
            load_trained_model(site_study("linear", version=2), model)
        assert refused.value.code == ErrorCode.STUDY_DIGEST

    def test_without_its_record_shapes_still_count(self, model):
        model.with_suffix(".json").unlink()
        assert not load_trained_model(STUDY, model).recorded
        with pytest.raises(ConfigError, match="do not fit the study's model"):
            load_trained_model(site_study("moemil"), model)

    def test_altered_parameters_are_refused(self, model):
        arrays = load_file(model)
        name = sorted(arrays)[0]
        arrays[name] = arrays[name] + np.float32(1e-3)
        save_file(arrays, model)
        with pytest.raises(ConfigError, match="not the one the run finished with"):
            load_trained_model(STUDY, model)

    def test_parameters_that_are_not_finite_are_refused(self, model):
        model.with_suffix(".json").unlink()
        arrays = load_file(model)
        name = sorted(arrays)[0]
        arrays[name] = arrays[name] * np.float32("nan")
        save_file(arrays, model)
        with pytest.raises(ConfigError) as refused:
            load_trained_model(STUDY, model)
        assert "not finite" in refused.value.why

    @pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x08" * 64])
    def test_what_is_no_model_is_refused(self, model, content):
        if content is None:
            model.unlink()
        else:
            model.write_bytes(content)
        with pytest.raises(ConfigError, match=r"no model file|cannot be read"):
            load_trained_model(STUDY, model)

    @pytest.mark.parametrize("text", ["{", "[]", json.dumps({"study_digest": "x"})])
    def test_a_damaged_record_is_refused(self, model, text):
        model.with_suffix(".json").write_text(text)
        with pytest.raises(ConfigError, match="record beside the model"):
            load_trained_model(STUDY, model)
