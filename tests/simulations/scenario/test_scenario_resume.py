"""A scenario from the command line: killed with -9 in mid-cell, then the same command again."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from tiny_public_cohort import write_data

from common.commands.cli_output import Output
from common.errors import ConfigError, DataError
from simulations.scenario.arm_comparison import compare
from simulations.scenario.scenario import Scenario
from simulations.scenario.scenario_report import scenario_json, write_scenario_report
from simulations.scenario.scenario_run import run_scenario
from simulations.scenario.scenario_study import load_cohort

ROUNDS = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenario")
    write_data(folder / "data" / "multicentre_survival")
    scenario = {
        "name": "tiny",
        "cohort": {"kind": "fed_tcga_brca"},
        "features": ["clinical"],
        "endpoints": {"survival": {}},
        "training": {"rounds": ROUNDS, "server": {"name": "adam", "lr": 0.02}},
        "folds": {"count": 2},
        "seeds": [0, 1],
        "reference": "pooled",
        "arms": [
            {"name": "pooled", "kind": "pooled"},
            {"name": "federated", "kind": "federated"},
            {"name": "alone", "kind": "local_only"},
            {"name": "floor", "kind": "clinical_floor"},
        ],
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(scenario))
    return folder


def run(scenario, data, out, workers=1):
    cohort = load_cohort(scenario, data)
    return run_scenario(scenario, cohort, out, workers=workers, output=Output(True))


@pytest.fixture(scope="module")
def whole(place):
    """The run nobody interrupts; in this process."""
    scenario = Scenario.from_yaml(place / "tiny.yaml").model_copy(update={"seeds": [0]})
    return run(scenario, place / "data", place / "whole")


def command(place, out):
    told = ["simulate", "run", str(place / "tiny.yaml"), "--data", str(place / "data")]
    told += ["--out", str(out), "--workers", "1", "--seeds", "1", "--json"]
    code = "import sys; from common.commands.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *told]


def start(place, out):
    return subprocess.Popen(
        command(place, out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_in_mid_cell(place, out):
    """Kill when the second cell has committed 6 rounds of its 24."""
    process = start(place, out)
    checkpoints = out / "work" / "federated_s0_f0" / "run" / "checkpoints"
    deadline = time.monotonic() + 120
    while not any(int(path.stem[6:]) >= 6 for path in checkpoints.glob("round_*.json")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_in_mid_cell_it_goes_on_to_the_same_table(place, whole):
    out = place / "killed"
    kill_in_mid_cell(place, out)
    done = {path.name: path.stat().st_mtime_ns for path in (out / "cells").glob("*.parquet")}
    assert list(done) == ["pooled_s0_f0.parquet"]
    assert not (out / "comparison.csv").exists()

    resumed = start(place, out)
    printed, errors = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, errors
    assert (out / "cells" / "pooled_s0_f0.parquet").stat().st_mtime_ns == done.popitem()[1]
    assert json.loads(printed) == json.loads(json.dumps(scenario_json(whole)))
    for name in ("comparison.csv", "cells.csv", "predictions.parquet"):
        assert (out / name).read_bytes() == (place / "whole" / name).read_bytes(), name
    assert (out / "comparison.html").is_file()
    assert not any((out / "work").iterdir())


def test_every_patient_is_tested_once_by_every_arm(place, whole):
    counted = whole.predictions.groupby("arm")["patient_id"].agg(["count", "nunique"])
    assert (counted.to_numpy() == 72).all()
    assert len(whole.predictions) == 4 * 72
    assert whole.predictions["risk"].notna().all()
    assert whole.hospitals == {"region0": 24, "region1": 24, "region2": 24}


def test_gradient_sums_of_hospitals_are_those_of_one_place(whole):
    wide = whole.predictions.pivot(index="patient_id", columns="arm", values="risk")
    np.testing.assert_allclose(wide["federated"], wide["pooled"], atol=1e-5)
    assert np.abs(wide["alone"] - wide["pooled"]).max() > 0.01


def test_results_of_another_scenario_are_not_mixed_in(place, whole):
    other = whole.scenario.model_copy(update={"seeds": [1]})
    with pytest.raises(ConfigError, match="another scenario"):
        run(other, place / "data", place / "whole")


@pytest.mark.slow
def test_workers_give_the_same_table(place, whole):
    other = run(whole.scenario, place / "data", place / "parallel", workers=2)
    pd.testing.assert_frame_equal(other.table, whole.table)


def test_page_names_every_arm_and_hospital(place, whole):
    page = write_scenario_report(compare(whole), place / "page").read_text()
    for name in ("pooled", "federated", "alone", "floor", "region0", "Nadeau"):
        assert name in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "nan" not in page.lower().replace("nadeau", "")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_comparison_of_two_scenarios_goes_on_to_the_same_table(place):
    second = yaml.safe_load((place / "tiny.yaml").read_text()) | {"name": "tiny_raw"}
    second["cohort"] = {"kind": "fed_tcga_brca", "standardise_age": False}
    (place / "raw.yaml").write_text(yaml.safe_dump(second))

    def start_comparison(out):
        told = ["simulate", "compare", str(place / "tiny.yaml"), str(place / "raw.yaml")]
        told += ["--data", str(place / "data"), "--out", str(out), "--seeds", "1", "--json"]
        code = "import sys; from common.commands.cli import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", code, *told],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    process = start_comparison(place / "two")
    deadline = time.monotonic() + 200
    while not (place / "two" / "tiny_raw" / "cells" / "pooled_s0_f0.parquet").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (place / "two" / "results.csv").exists()
    for out in ("two", "undisturbed"):
        printed, errors = start_comparison(place / out).communicate(timeout=300)
        assert json.loads(printed)["scenarios"], errors
    for name in ("results.csv", "results.parquet", "comparison.html"):
        found = [(place / out / name).read_bytes() for out in ("two", "undisturbed")]
        assert found[0] == found[1], name


def test_without_the_data_nothing_is_written(place):
    scenario = Scenario.from_yaml(place / "tiny.yaml")
    with pytest.raises(DataError, match="missing"):
        run(scenario, place, place / "never")
    assert not (place / "never").exists()
