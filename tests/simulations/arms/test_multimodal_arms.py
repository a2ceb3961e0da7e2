import numpy as np
import pandas as pd
import pytest
from tiny_consortium import tiny_agents, tiny_datasets, tiny_study

from common.commands.cli_output import Output
from common.study.study import FeatureSpec
from simulations.arms.multimodal_arms import arms_of_less, score_seed, train_federated_epochs
from simulations.benchmarks.cohorts import tcga_multimodal
from simulations.cohorts.cohort import Cohort
from simulations.comparison.comparison import cell_metrics, compare_arms
from simulations.engines.consortium_run import run_in_process
from simulations.scenario.scenario import Scenario

KINDS = {"slide": "pathology", "rna": "genomics", "clinical": "clinical"}


def cohort(n=360):
    """Three hospitals; slides and clinical columns carry signal, RNA carries none."""
    rng = np.random.default_rng(4)
    rows = {name: rng.normal(size=(n, 3)).astype(np.float32) for name in KINDS}
    signal = 1.2 * rows["slide"][:, 0] + 0.8 * rows["clinical"][:, 0]
    died, left = rng.exponential(24 * np.exp(-signal)), rng.exponential(60, n)
    return Cohort(
        name="made",
        patient_ids=[f"p{i:03d}" for i in range(n)],
        hospital=rng.choice(["a", "b", "c"], n),
        specs={k: FeatureSpec(modality=m, dim=3) for k, m in KINDS.items()},
        features={k: [row[None] for row in rows[k]] for k in KINDS},
        response=(rng.random(n) < 1 / (1 + np.exp(-signal))).astype(float),
        time_months=np.minimum(died, left) + 0.1,
        event=(died <= left).astype(float),
        clinical=pd.DataFrame(rows["clinical"], columns=list("xyz")).astype(float),
    )


@pytest.fixture(scope="module")
def scored():
    scenario = Scenario.from_mapping(
        {
            "name": "made",
            "cohort": {"kind": "tcga", "name": "luad"},
            "features": list(KINDS),
            "endpoints": {"survival": {}, "response": {"positive": "yes"}},
            "training": {"rounds": 25, "server": {"name": "adam", "lr": 0.05}},
            "folds": {"count": 2},
            "reference": "pooled",
            "arms": [
                {"name": "pooled", "kind": "pooled"},
                {
                    "name": "fedavg",
                    "training": {
                        "rounds": 5,
                        "local": {"kind": "epochs", "optimizer": "sgd", "lr": 0.2},
                        "server": {"name": "average"},
                    },
                },
            ],
        },
        where="test",
    )
    predictions = score_seed(scenario, cohort(), 0)
    assert set(arms_of_less(scenario)) <= set(predictions["arm"])
    return predictions


def test_every_arm_predicts_every_patient_once(scored):
    counted = scored.groupby("arm")["patient_id"].agg(["size", "nunique"])
    assert (counted.to_numpy() == 360).all()
    assert len(counted) == 6 + 3 + 3 + 2
    assert scored["risk"].notna().all()


def test_federated_is_pooled_and_the_useless_modality_is_seen_to_be_useless(scored):
    wide = scored.pivot(index="patient_id", columns="arm", values="risk")
    np.testing.assert_allclose(wide["federated"], wide["pooled"], atol=1e-4)
    table = compare_arms(cell_metrics(scored), "federated", test_share=1.0)
    mean = table[table["metric"] == "c_index"].set_index("arm")["mean"]
    assert mean["slide_only"] > mean["clinical_only"] > 0.55 > mean["rna_only"]
    assert mean["federated"] > mean["slide_only"] + 0.02
    assert mean["slide_missing"] < mean["federated"] - 0.05
    assert mean["half_lack_slide"] < mean["federated"] - 0.02
    assert mean["rna_missing"] == pytest.approx(mean["federated"], abs=0.02)


def test_benchmark_says_in_words_what_the_intervals_say():
    def row(mean, difference, p):
        ends = {"ci_low": difference - 0.02, "ci_high": difference + 0.02}
        return {"mean": mean, "difference": difference, "p_holm": p, **ends}

    rows = {
        "federated": row(0.7, np.nan, np.nan),
        "pooled": row(0.705, 0.005, 1.0),
        "fedavg": row(0.69, -0.01, 1.0),
        "local_only": row(0.6, -0.1, 0.01),
        "leave_one_out": row(0.65, -0.05, 0.2),
        "clinical_floor": row(0.78, 0.08, 0.02),
        "slide_only": row(0.6, -0.1, 0.01),
        "rna_only": row(0.69, -0.01, 0.9),
    }
    less = ["slide_only", "rna_only", "clinical_floor"]
    found = list(tcga_multimodal.endpoint_checks("luad", rows, rows, less))
    assert [check.holds for check in found] == [True] * 4
    assert found[0].value == pytest.approx(0.005)
    told = "helps: slide_only; no difference shown: rna_only; harms: clinical_floor"
    assert told in found[3].note
    assert "rna_only +0.010 (-0.010 to +0.030), no difference shown" in found[3].note
    rows["pooled"] = row(0.72, 0.02, 0.01)
    assert not next(iter(tcga_multimodal.endpoint_checks("luad", rows, rows, less))).holds


def test_epochs_without_transport_are_the_epochs_of_a_whole_run(tmp_path):
    study = tiny_study(
        training={
            "rounds": 4,
            "test_fraction": 0.0,
            "local": {"kind": "epochs", "optimizer": "sgd", "lr": 0.1, "proximal_mu": 0.1},
            "server": {"name": "adam", "lr": 0.05},
            "aggregation": {"rule": "centred_clipping"},
        }
    )
    agents = tiny_agents(study, tmp_path / "sites")
    whole = run_in_process(study, agents, tmp_path / "run", output=Output(True)).arrays
    found = train_federated_epochs(study, tiny_datasets(study))
    for name, value in whole.items():
        np.testing.assert_array_equal(found[name], value)
