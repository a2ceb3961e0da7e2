"""A study over a cohort in memory leaves what a real one leaves: report, model, ledgers."""

import numpy as np
import pytest
from made_patients import COLUMNS, patients

from common.commands.cli_output import Output
from common.errors import ConfigError
from common.ledger.ledger_frame import read_ledger_frame
from simulations.arms.simulated_study import simulate_study
from simulations.cohorts.cohort_table import read_cohort
from simulations.scenario.simulate import draft_study

QUIET = Output(json_mode=True)


@pytest.fixture(scope="module")
def cohort():
    return read_cohort(patients(180), COLUMNS, name="made", notes=["Made patients."])


def make_study(cohort):
    privacy = {"mode": "distributed", "epsilon": 8.0}
    return draft_study(cohort, training={"rounds": 4, "server": {"lr": 0.1}}, privacy=privacy)


@pytest.fixture(scope="module")
def place(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, simulate_study(make_study(cohort), cohort, folder, output=QUIET)


def test_report_and_ledgers_tell_the_same_epsilon(place):
    folder, report = place
    assert report.privacy["mode"] == "distributed"
    assert list(report.hospitals.index) == ["east", "north", "south"]
    for site, spent in report.hospitals["epsilon_spent"].items():
        ledger = read_ledger_frame(folder / "sites" / site / "private" / "ledger.jsonl")
        train = ledger[ledger["partition"] == "train"]
        assert list(train["round"]) == [1, 2, 3, 4]
        assert train["epsilon"].iloc[-1] == pytest.approx(spent)
        assert spent <= 8.0


def test_baselines_are_tested_on_the_patients_that_were_held_out(place):
    _, report = place
    table = report.metrics.set_index(["scope", "name", "metric"])["value"]
    for name in ("pooled", "local_only", "clinical_floor"):
        assert np.isfinite(table["baseline", name, "c_index"])
    twin = report.content["baselines"]["pooled"]
    tested = twin["federated_minus_it"]["c_index"]
    assert tested["value"] == pytest.approx(
        table["all", "federated", "c_index"] - table["baseline", "pooled", "c_index"], abs=0.02
    )
    assert "Made patients." in report.content["caveats"]


def test_everything_lies_in_the_folder_and_the_same_call_goes_on(place, cohort):
    folder, report = place
    assert (folder / "report.html").is_file()
    ledger = folder / "sites" / "east" / "private" / "ledger.jsonl"
    before = ledger.read_bytes()
    again = simulate_study(make_study(cohort), cohort, folder, baselines=False, output=QUIET)
    assert again.content["model_digest"] == report.content["model_digest"]
    assert (folder / "run" / "model.safetensors").is_file()
    assert ledger.read_bytes() == before, "nothing is spent twice"


def test_a_roster_of_other_hospitals_is_refused(cohort, tmp_path):
    study = draft_study(cohort.take(np.flatnonzero(cohort.hospital != "east")))
    with pytest.raises(ConfigError, match="different hospitals") as caught:
        simulate_study(study, cohort, tmp_path / "never", output=QUIET)
    assert caught.value.where == "east"
    assert not (tmp_path / "never").exists()
