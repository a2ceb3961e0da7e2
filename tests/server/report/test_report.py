"""The page and its JSON twin, from a real run over hospitals in memory."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from common.cli_output import Output
from common.metrics.estimate import Estimate
from common.metrics.kaplan_meier import survival_curve
from common.study import Study
from server.finished_run import read_finished_run
from server.report.build import build_report
from server.report.content import Baseline, make_content
from server.report.page import show
from server.report.survival_plot import survival_svg
from simulations.cells import by_hospital
from simulations.cohorts.cohort import Cohort
from simulations.consortium_run import run_in_process
from simulations.memory_sites import memory_agents


def cohort(n=240, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 3)).astype(np.float32)
    death = generator.exponential(40 * np.exp(-x[:, 0]))
    censor = generator.uniform(10, 90, n)
    study = make_study()
    return study, Cohort(
        name="test",
        patient_ids=[f"p{i:04d}" for i in range(n)],
        hospital=generator.choice(["a", "b", "c"], n),
        specs=dict(study.features),
        features={"table": [row[None] for row in x]},
        response=(generator.uniform(size=n) < 1 / (1 + np.exp(-2 * x[:, 1]))).astype(float),
        time_months=np.minimum(death, censor),
        event=(death <= censor).astype(float),
        clinical=pd.DataFrame(x),
    )


def make_study():
    return Study.model_validate(
        {
            "study_id": "report-test",
            "title": "A <b>title</b> & more",
            "synthetic": True,
            "endpoints": {"response": {"positive": "yes"}, "survival": {}},
            "features": {"table": {"modality": "clinical", "dim": 3}},
            "model": {"name": "linear"},
            "training": {"rounds": 15, "nominal_patients": 180, "test_fraction": 0.4},
            "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
            "sites": [{"site_id": s} for s in "abc"],
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    study, patients = cohort()
    agents = memory_agents(study, by_hospital(patients), folder / "sites")
    return run_in_process(study, agents, folder / "run", output=Output(json_mode=True))


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    pooled = Baseline("pooled", "Pooled", "one place", {"c_index": Estimate(0.7)})
    folder = tmp_path_factory.mktemp("report")
    page, twin = build_report(make_content(run, [pooled]), folder)
    return page.read_text(), json.loads(twin.read_text())


def test_the_twin_holds_what_programs_rely_on(run, written):
    _, twin = written
    assert twin["study_digest"] == run.study.digest()
    assert twin["rounds"] == 15
    assert [site["site_id"] for site in twin["sites"]] == ["a", "b", "c"]
    for site in twin["sites"]:
        assert {"n", "modalities", "epsilon_spent", "response_auc", "c_index"} <= set(site)
    assert 0.55 < twin["global"]["c_index"] < 1
    assert 0.55 < twin["global"]["response_auc"] < 1
    assert {"log_rank_p"} <= set(twin["global"])
    assert set(twin["baselines"]) == {"pooled", "local_only", "clinical_floor", "oracle"}
    assert {"mode", "unit", "epsilon", "delta", "promise"} <= set(twin["privacy"])


def test_a_missing_metric_is_null_with_its_reason(written):
    _, twin = written
    oracle = twin["baselines"]["oracle"]
    assert oracle["c_index"] is None
    assert "simulations only" in oracle["c_index_reason"]
    assert twin["privacy"]["epsilon"] is None


def test_the_page_shows_the_numbers_of_the_twin(written):
    page, twin = written
    for name in ("c_index", "response_auc"):
        assert f"{twin['global'][name]:.3f}" in page
    assert "SYNTHETIC PATIENTS" in page


def test_the_page_is_offline_escaped_and_well_formed(written):
    page, _ = written

    class Links(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag, attrs):
            self.found += [v for k, v in attrs if k in {"src", "href"} and v]

    links = Links()
    links.found = []
    links.feed(page)
    assert all(link.startswith("#") for link in links.found)
    assert "A <b>title</b>" not in page
    assert "A &lt;b&gt;title&lt;/b&gt; &amp; more" in page
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) >= 5
    ids = []
    for figure in figures:
        root = ET.fromstring(figure)
        assert root.get("aria-label")
        assert root.get("role") == "img"
        ids += [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_a_finished_run_is_read_back_and_gives_the_same_report(run, written, tmp_path):
    again = read_finished_run(run.run_dir)
    pooled = Baseline("pooled", "Pooled", "one place", {"c_index": Estimate(0.7)})
    page, twin = build_report(make_content(again, [pooled]), tmp_path)
    assert json.loads(twin.read_text()) == written[1]
    assert page.read_text() == written[0]


def test_small_counts_of_exact_tables_are_hidden_and_noisy_ones_are_not():
    died = np.array([0.0, 4.0, 2.0, 1.0])
    curve = survival_curve("low risk", died, np.zeros(4), np.array([0, 12.0, 24, 36, np.inf]))
    shown = survival_svg([curve], exact=True, p_value="p = 1")
    assert "&lt;5" in shown
    assert "&lt;5" not in survival_svg([curve], exact=False, p_value="p = 1")


def test_an_estimate_reads_like_a_sentence():
    assert show(Estimate(None, "one event")) == "not estimable: one event"
    assert show(Estimate(0.71234, ci_low=0.6, ci_high=0.8)) == "0.712 (0.60–0.80)"
    assert show(Estimate(2e-7)) == "2.0e-07"
