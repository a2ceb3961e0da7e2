"""Every kind of arm of a scenario on a small made cohort, through real servers and agents."""

import numpy as np
import pandas as pd
import pytest
from tiny_public_cohort import write_data

from common.commands.cli_output import Output
from common.errors import ConfigError
from simulations.scenario.scenario import Scenario, load_scenario, shipped_scenarios
from simulations.scenario.scenario_run import run_scenario
from simulations.scenario.scenario_study import load_cohort

EPOCHS = {"kind": "epochs", "batch_size": 8, "optimizer": "sgd", "lr": 0.1}
AVERAGE = {"rounds": 4, "local": EPOCHS, "server": {"name": "average"}}
ARMS = [
    {"name": "federated"},
    {"name": "fedavg", "training": AVERAGE},
    {"name": "scaffold", "training": {**AVERAGE, "local": EPOCHS | {"control_variates": True}}},
    {"name": "cyclic", "training": {**AVERAGE, "schedule": "cyclic"}},
    {"name": "baseline", "training": {**AVERAGE, "stay_local": ["heads.*"]}},
    {
        "name": "fine_tuned",
        "training": {**AVERAGE, "personal": {"kind": "fine_tune", "local": EPOCHS}},
    },
    {"name": "left_out", "kind": "leave_one_out"},
    {"name": "absent", "circumstances": {"dropout": 0.5}},
    {"name": "late", "training": AVERAGE, "circumstances": {"straggle": 0.5}},
    {"name": "nan", "circumstances": {"poison": {"kind": "nan"}}},
    {
        "name": "flip",
        "circumstances": {"poison": {"kind": "sign_flip", "factor": 5}},
        "training": {"rounds": 4, "aggregation": {"rule": "median"}},
    },
]


def scenario(arms=ARMS):
    return Scenario.from_mapping(
        {
            "name": "arms",
            "cohort": {"kind": "fed_tcga_brca"},
            "features": ["clinical"],
            "endpoints": {"survival": {}},
            "training": {"rounds": 4, "server": {"name": "adam", "lr": 0.05}},
            "folds": {"count": 2},
            "reference": "federated",
            "arms": arms,
        },
        where="test",
    )


def run(plan, data, out):
    return run_scenario(plan, load_cohort(plan, data), out, workers=1, output=Output(True))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    write_data(folder / "multicentre_survival")
    return folder


@pytest.fixture(scope="module")
def found(place):
    return run(scenario(), place, place / "out")


def test_every_arm_predicts_every_patient(found):
    counted = found.predictions.groupby("arm")["risk"].agg(["count", "size"])
    assert len(counted) == len(ARMS)
    assert (counted.to_numpy() == 72).all()


def test_every_arm_trains_another_model(found):
    wide = found.predictions.pivot(index="patient_id", columns="arm", values="risk")
    for i, one in enumerate(wide):
        for other in wide.columns[i + 1 :]:
            assert np.abs(wide[one] - wide[other]).max() > 1e-5, (one, other)


def test_arms_without_privacy_repeat_to_the_bit_although_sites_are_silent(place, found):
    arms = [arm for arm in ARMS if arm["name"] in ("federated", "absent", "late", "scaffold")]
    again = run(scenario(arms), place, place / "again")
    names = [arm["name"] for arm in arms]
    first = found.predictions[found.predictions["arm"].isin(names)].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        first.sort_values(["fold", "arm", "patient_id"], ignore_index=True),
        again.predictions.sort_values(["fold", "arm", "patient_id"], ignore_index=True),
        check_exact=True,
    )


def test_unknown_arm_is_named_and_the_reference_is_kept():
    assert [arm.name for arm in scenario().with_arms(["late"]).arms] == ["federated", "late"]
    with pytest.raises(ConfigError, match="no arm nobody"):
        scenario().with_arms(["nobody"])


def test_every_shipped_scenario_is_read():
    names = [load_scenario(path.stem).name for path in shipped_scenarios()]
    assert names == [path.stem for path in shipped_scenarios()]
