"""A headline metric added to the catalogue is compared between arms without another edit."""

import re

import numpy as np
import pandas as pd
import pytest

from common.metrics.catalogue import METRICS
from common.metrics.metric import Headline, Scale
from common.metrics.survival.concordance import c_index_sd
from common.metrics.tables.site_pairs import survival_pairs
from simulations.comparison.comparison import cell_metrics, compare_arms
from simulations.scenario.arm_comparison import compare
from simulations.scenario.scenario import Scenario
from simulations.scenario.scenario_report import write_scenario_report
from simulations.scenario.scenario_run import ScenarioResult


def _wrong_pairs(known):
    right, pairs = survival_pairs(known)
    return np.array([pairs - right, pairs])


MISRANKED = Headline(
    "misranked",
    "pairs ranked wrongly",
    "survival",
    Scale("lower", 0, 1),
    statistic=lambda ranks: 1 - ranks.c_index(),
    short="share of misranked pairs",
    no_skill=0.5,
    sd=c_index_sd,
    pairs=_wrong_pairs,
    within_sites="c_index_within_sites",
)
NOISE = {"reference": 12.0, "sharp": 3.0, "blunt": 80.0}


def predictions():
    """Three arms, two seeds and folds, six hospitals of 40: the more noise, the worse."""
    rng = np.random.default_rng(0)
    patients = pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(240)],
            "hospital": [f"h{i % 6}" for i in range(240)],
            "time_months": rng.exponential(20, 240),
            "event": rng.integers(0, 2, 240).astype(float),
            "response": np.nan,
            "response_prob": np.nan,
            "fold": np.arange(240) // 6 % 2,
        }
    )
    return pd.concat(
        patients.assign(
            arm=arm, seed=seed, risk=sd * rng.normal(size=240) - patients["time_months"]
        )
        for arm, sd in NOISE.items()
        for seed in (0, 1)
    )


@pytest.fixture
def comparison(monkeypatch):
    monkeypatch.setitem(METRICS._entries, MISRANKED.name, MISRANKED)
    scenario = Scenario.from_mapping(
        {
            "name": "made",
            "cohort": {"kind": "fed_tcga_brca"},
            "features": ["clinical"],
            "endpoints": {"survival": {}},
            "folds": {"count": 2},
            "reference": "reference",
            "arms": [{"name": arm} for arm in NOISE],
        },
        where="test",
    )
    rows = predictions()
    cells = cell_metrics(rows)
    table = compare_arms(cells, "reference", test_share=0.0)
    return compare(ScenarioResult(scenario, rows, cells, table, {"h0": 40}, ()))


def test_it_is_compared_by_cell_and_hospital_and_low_is_good(comparison):
    for name in ("c_index", "misranked", "c_index_within", "misranked_within"):
        rows = comparison.rows(name)
        assert list(rows["arm"]) == ["sharp", "reference", "blunt"]
        verdicts = list(rows["verdict"])
        assert (verdicts[0], verdicts[2]) == ("better", "worse")
    table = comparison.table.set_index(["metric", "arm"])
    for arm in ("sharp", "blunt"):
        difference = table.loc[("c_index", arm), "difference"]
        assert table.loc[("misranked", arm), "difference"] == pytest.approx(-difference)
    hospitals = comparison.hospitals
    assert np.allclose(hospitals["misranked"], 1 - hospitals["c_index"])
    assert list(comparison.rankings["misranked"].ranks) == ["sharp", "reference", "blunt"]


def test_it_stands_on_the_page_of_the_comparison(comparison, tmp_path):
    page = write_scenario_report(comparison, tmp_path).read_text()
    labels = re.findall(r'aria-label="([^"]+)"', page)
    for whom in ("all test patients", "pairs inside a hospital"):
        title = f"Survival, pairs ranked wrongly, {whom}"
        assert f"<h3>{title}</h3>" in page
        assert any(label.startswith(f"{title}: sharp") for label in labels)
    assert any("ranked wrongly, all test patients, mean ranks: sharp" in x for x in labels)
