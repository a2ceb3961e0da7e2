"""A cohort from a table is simulated by the engine that runs the shipped scenarios."""

import numpy as np
import pandas as pd
import pytest
from made_patients import COLUMNS, patients

from common.commands.cli_output import Output
from common.errors import ConfigError, DataError
from common.privacy.plan import PrivacyPlan
from simulations.cohorts.cohort_table import read_cohort
from simulations.scenario.arm_comparison import compare
from simulations.scenario.scenario import Arm, Folds
from simulations.scenario.simulate import draft_study, simulate

QUIET = Output(json_mode=True)
ARMS = ("pooled", "federated", "local_only", "clinical_floor")


@pytest.fixture(scope="module")
def cohort():
    return read_cohort(patients(90), COLUMNS, name="made")


@pytest.fixture(scope="module")
def study(cohort):
    return draft_study(cohort, training={"rounds": 6, "server": {"lr": 0.1}})


@pytest.fixture(scope="module")
def result(cohort, study):
    return simulate(cohort, study, epsilon=8, folds=2, output=QUIET)


def test_every_arm_predicts_every_patient_once(result):
    counted = result.predictions.groupby("arm")["patient_id"].agg(["count", "nunique"])
    assert set(counted.index) == {*ARMS, "local_eps8"}
    assert (counted.to_numpy() == 90).all()
    assert result.scenario.reference == "pooled"
    assert result.hospitals == {"east": 30, "north": 30, "south": 30}


def test_the_federation_is_the_pooled_model_and_the_private_one_is_not(result):
    wide = result.predictions.pivot(index="patient_id", columns="arm", values="risk")
    np.testing.assert_allclose(wide["federated"], wide["pooled"], atol=1e-5)
    for arm in ("local_only", "clinical_floor", "local_eps8"):
        assert np.abs(wide[arm] - wide["pooled"]).max() > 0.01, arm


def test_a_simulation_goes_on_where_it_stopped_and_never_on_other_patients(cohort, study, tmp_path):
    once = simulate(cohort, study, arms=["federated"], folds=2, folder=tmp_path, output=QUIET)
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    again = simulate(cohort, study, arms=["federated"], folds=2, folder=tmp_path, output=QUIET)
    pd.testing.assert_frame_equal(once.predictions, again.predictions)
    assert written == {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    frame = patients(90)
    frame.loc[3, "gene_1"] += 1e-3
    other = read_cohort(frame, COLUMNS, name="made")
    with pytest.raises(ConfigError, match="another scenario"):
        simulate(other, study, arms=["federated"], folds=2, folder=tmp_path, output=QUIET)


def test_private_arms_take_the_plan_of_the_study_and_every_budget(cohort, monkeypatch):
    plan = {"mode": "distributed", "epsilon": 3.0, "clip": 0.5}
    private = draft_study(cohort, privacy=plan)
    seen = []
    run = "simulations.scenario.simulate.run_scenario"
    monkeypatch.setattr(run, lambda scenario, *_, **__: seen.append(scenario))
    simulate(cohort, private, arms=["federated"], epsilon=[1, 3])
    named = {arm.name: arm.privacy for arm in seen[0].arms}
    assert set(named) == {"federated", "distributed_eps3", "distributed_eps1"}
    assert named["federated"] is None
    assert {p.clip for p in named.values() if p} == {0.5}
    simulate(cohort, arms=["pooled"], mode="local", epsilon=2, folds=Folds(rule="whole_hospital"))
    assert [(a.name, a.privacy and a.privacy.mode) for a in seen[1].arms] == [
        ("pooled", None),
        ("local_eps2", "local"),
    ]
    assert seen[1].folds.rule == "whole_hospital"
    own = Arm(name="mine", privacy=PrivacyPlan(mode="local"))
    simulate(cohort, arms=[own, "pooled"], seeds=[4, 5])
    assert (seen[2].reference, seen[2].seeds) == ("mine", [4, 5])


def test_a_comparison_says_what_the_result_says(result):
    found = compare(result)
    rows = found.rows("c_index").set_index("arm")
    assert list(rows["mean"]) == sorted(rows["mean"], reverse=True)
    against = compare(result, reference="clinical_floor").rows("c_index").set_index("arm")
    assert against.loc["pooled", "difference"] == pytest.approx(
        -rows.loc["clinical_floor", "difference"]
    )
    assert set(found.table["verdict"]) <= {"", "no difference shown", "better", "worse"}
    assert found.ranks.empty, "three hospitals are too few to rank"
    for wrong in (lambda: compare(), lambda: compare(result, result)):
        with pytest.raises(ConfigError, match="different names"):
            wrong()
    with pytest.raises(ConfigError, match="no arm 'nobody'"):
        compare(result, reference="nobody")
    with pytest.raises(ConfigError, match="c_index of made"):
        found.rows("accuracy")
    with pytest.raises(ConfigError, match="not ranked"):
        found.plot_ranks()


def test_arms_are_drawn_on_the_axes_given(result):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert compare(result).plot_arms("response_auc", ax=ax) is ax
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert set(labels) == {*ARMS, "local_eps8"}


def test_a_study_is_drafted_from_what_the_cohort_records(cohort):
    drafted = draft_study(cohort, training={"rounds": 7})
    assert drafted.tasks == ("response", "survival")
    assert [site.site_id for site in drafted.sites] == ["east", "north", "south"]
    assert drafted.features == cohort.specs
    assert drafted.training.rounds == 7
    frame = patients(30).assign(responded=1)
    assert draft_study(read_cohort(frame, COLUMNS)).tasks == ("survival",)
    with pytest.raises(DataError, match="no outcome of the cohort varies"):
        draft_study(read_cohort(frame.assign(died=0), COLUMNS))
    with pytest.raises(ConfigError, match="trainig"):
        draft_study(cohort, trainig={})


def test_the_study_decides_how_features_are_read(cohort, study):
    from simulations.scenario.scenario_study import arm_study

    genes = study.features["genomics"].model_copy(update={"max_tokens": 2})
    other = study.model_copy(update={"features": {"genomics": genes}})
    seen = []

    def look(scenario, given, *_, **__):
        seen.append(arm_study(scenario, scenario.arms[0], given, ["a", "b"], n_train=9, seed=0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulations.scenario.simulate.run_scenario", look)
        simulate(cohort, other)
    assert seen[0].features == {"genomics": genes}
