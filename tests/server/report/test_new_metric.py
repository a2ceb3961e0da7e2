"""A metric added to the catalogue is reported, drawn and exported without another edit."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from common.metrics.catalogue import METRICS
from common.metrics.metric import Headline, Metric, Scale
from common.metrics.survival.concordance import c_index_sd
from common.metrics.survival.survival_metrics import c_index
from common.metrics.tables.estimate import Estimate
from common.metrics.tables.site_pairs import survival_pairs
from server.operate.metric_export import read_metric_history
from server.report.build import build_report
from server.report.content import make_content


def _wrong_pairs(known):
    right, pairs = survival_pairs(known)
    return np.array([pairs - right, pairs])


def _flipped(view):
    estimate = c_index(view)
    if estimate.value is None:
        return estimate
    return replace(estimate, value=1 - estimate.value, ci_low=None, ci_high=None)


MISRANKED = Headline(
    "misranked",
    "pairs ranked wrongly",
    "survival",
    Scale("lower", 0, 1),
    _flipped,
    statistic=lambda ranks: 1 - ranks.c_index(),
    short="share of misranked pairs",
    no_skill=0.5,
    sd=c_index_sd,
    pairs=_wrong_pairs,
    within_sites="c_index_within_sites",
)
FOLLOWED = Metric(
    "followed",
    "patients followed for {} months",
    "survival",
    Scale("none", unit="patients"),
    lambda view, months: Estimate(view.table[:, view.grid.edge_of(months) :].sum()),
    horizons=True,
)


@pytest.fixture(scope="module")
def report(run, pooled, tmp_path_factory):
    """Folder of the report of the same run, with two more metrics."""
    folder = tmp_path_factory.mktemp("more") / "run"
    shutil.copytree(run.run_dir, folder)
    with pytest.MonkeyPatch.context() as patch:
        for metric in (MISRANKED, FOLLOWED):
            patch.setitem(METRICS._entries, metric.name, metric)
        build_report(make_content(run, [pooled]), folder)
    return folder


@pytest.fixture(scope="module")
def twin(report):
    return json.loads((report / "report.json").read_text())


def test_it_stands_in_the_json_with_its_interval_by_hospital_and_by_subgroup(twin):
    whole = twin["global"]
    assert whole["misranked"] == pytest.approx(1 - whole["c_index"])
    low, high = whole["misranked_ci"]
    assert low == pytest.approx(1 - whole["c_index_ci"][1])
    assert low < whole["misranked"] < high
    assert whole["followed_12m"] >= whole["followed_36m"] >= whole["followed_60m"]
    for site in twin["sites"]:
        assert site["misranked"] == pytest.approx(1 - site["c_index"])
    assert set(twin["leave_one_out"]["a"]) >= {"misranked", "c_index"}
    level = twin["subgroups"]["sex"]["levels"]["female"]
    assert level["misranked"]["value"] == pytest.approx(1 - level["c_index"]["value"])
    assert twin["baselines"]["oracle"]["misranked_reason"] == "simulations only"


def test_where_low_is_good_the_worst_is_the_highest(twin):
    assert twin["worst_site"]["misranked"]["site"] == twin["worst_site"]["c_index"]["site"]
    gaps = twin["subgroups"]["sex"]["gaps"]
    assert (gaps["misranked"]["best"], gaps["misranked"]["worst"]) == (
        gaps["c_index"]["best"],
        gaps["c_index"]["worst"],
    )


def test_it_stands_on_the_page_and_is_drawn(report, twin):
    page = (report / "report.html").read_text()
    figures = re.findall(r'aria-label="([^"]+)"', page)
    label = "Survival, pairs ranked wrongly"
    assert sum(figure.startswith(f"{label}:") for figure in figures) == 2  # hospitals, subgroups
    assert f"{label}<b>{twin['global']['misranked']:.3f}</b>" in page
    assert "0.5 no discrimination, 0 perfect" in page
    assert "patients followed for 36 months, patients" in page


def test_it_stands_on_both_cards_and_in_the_export(report, twin):
    for name in ("study_card.md", "model_card.md"):
        assert "pairs ranked wrongly" in (report / name).read_text()
    assert "patients followed for 12, 36, 60 months" in (report / "study_card.md").read_text()
    final = {point.name: point.value for point in read_metric_history(report).points}
    assert final["final/misranked"] == twin["global"]["misranked"]
    assert final["final/followed_12m"] == twin["global"]["followed_12m"]
