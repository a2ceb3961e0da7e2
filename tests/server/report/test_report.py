"""The page and its JSON twin, from a real run over hospitals in memory."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from common.metrics.survival.kaplan_meier import shown, survival_curve
from common.metrics.tables.estimate import Estimate
from server.report.build import build_report
from server.report.content import make_content
from server.report.page import show, signed
from server.report.survival_plot import SIZE, plot_survival
from server.report.svg import to_svg
from server.run.finished_run import read_finished_run


def survival_svg(curves, **shown):
    """Return the survival figure as the page shows it."""

    def draw(figure):
        ax, table = figure.subplots(2, 1, sharex=True)
        plot_survival(curves, **shown, ax=ax, table=table)

    return to_svg(draw, SIZE, name="km", label="")


def test_a_label_of_a_figure_may_hold_any_character():
    label = r'C:\new \1 \g<0> & "quoted" <b>'
    text = to_svg(lambda figure: figure.subplots(), SIZE, name="km", label=label)
    assert ElementTree.fromstring(text).attrib["aria-label"] == label


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
    for site in twin["sites"]:  # zero would read as perfect privacy
        assert site["epsilon_spent"] is None
        assert "without noise" in site["epsilon_spent_reason"]
        assert site["evaluation_epsilon_spent"] is None
    assert set(twin["privacy"]["epsilon_spent"].values()) == {None}


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
    assert "A &lt;b&gt;title&lt;/b&gt; &amp; more | less" in page
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) >= 10
    ids = []
    for figure in figures:
        root = ET.fromstring(figure)
        assert root.get("aria-label")
        assert root.get("role") == "img"
        ids += [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_a_finished_run_is_read_back_and_gives_the_same_report(run, pooled, written, tmp_path):
    again = read_finished_run(run.run_dir)
    page, twin = build_report(make_content(again, [pooled]), tmp_path)
    assert json.loads(twin.read_text()) == written[1]
    assert page.read_text() == written[0]


def test_small_counts_of_exact_tables_are_hidden_and_noisy_ones_are_not():
    died = np.array([0.0, 4.0, 2.0, 1.0])
    curve = survival_curve("low risk", died, np.zeros(4), np.array([0, 12.0, 24, 36, np.inf]))
    shown = survival_svg([curve], exact=True, p_value=None)
    assert "&lt;5" in shown
    assert "&lt;5" not in survival_svg([curve], exact=False, p_value=None)


def test_an_estimate_reads_like_a_sentence():
    assert show(Estimate(None, "one event")) == "not estimable: one event"
    assert show(Estimate(0.71234, ci_low=0.6, ci_high=0.8)) == "0.712 (0.60–0.80)"
    assert show(Estimate(2e-7)) == "2.0e-07"
    assert show(Estimate(1.0, "fewer than 5 events")) == "1.000; fewer than 5 events"
    assert show(Estimate(-0.2, ci_low=-0.5, ci_high=0.1)) == "−0.200 (−0.50 to 0.10)"
    assert signed(Estimate(-0.00001)) == "0.000"
    assert signed(Estimate(0.0312, ci_low=-0.01, ci_high=0.07)).startswith("+0.031 (−0.010")


def test_curves_end_where_few_are_followed_and_say_so():
    died = np.array([2.0, 20.0, 2.0, 1.0, 2.0])
    edges = np.array([0, 10.0, 20, 30, 40, np.inf])
    curve = shown(survival_curve("low risk", died, np.zeros(5), edges), exact=True)
    assert curve.time_months.tolist() == [10, 20]  # five are left after 20 months
    drawn = survival_svg([curve], exact=True, p_value=None)
    assert ">25<" in drawn
    assert "&lt;5" not in drawn  # nothing is drawn beyond the last shown time
    longer = shown(
        survival_curve("high risk", died, np.array([0, 0, 0, 0, 30.0]), edges), exact=True
    )
    assert "&lt;5" in survival_svg([curve, longer], exact=True, p_value=None)


def test_scores_that_do_not_split_the_patients_give_one_curve_that_says_so():
    edges = np.array([0, 10.0, 20, 30, np.inf])
    low, whole = (
        survival_curve(label, np.array([3.0, 3, 3, 3]), np.full(4, 5.0), edges)
        for label in ("low risk", "all patients")
    )
    drawn = survival_svg([whole, low], exact=True, p_value=None)
    assert "one risk group only" in drawn
    assert "low risk" not in drawn


def test_every_section_of_the_page_is_there_with_its_figure(written):
    page, _ = written
    for heading in (
        "Discrimination, all hospitals together",
        "Calibration",
        "Hospitals",
        "Baselines and floors",
        "Subgroups",
        "Privacy, promised and spent",
        "Training",
    ):
        assert f"<h2>{heading}</h2>" in page
    labels = re.findall(r'aria-label="([^"]+)"', page)
    for start in ("Kaplan-Meier", "AUC over time", "ROC", "Calibration", "Learning curve"):
        assert any(label.startswith(start) for label in labels), start
    assert any("federated minus other: against pooled" in label for label in labels)
    assert any("sex: female" in label for label in labels)


def test_the_paired_difference_stands_on_page_and_twin(written):
    page, twin = written
    assert "−0.012 (−0.050 to +0.020)" in page
    paired = twin["baselines"]["pooled"]["federated_minus_it"]["c_index"]
    assert (paired["value"], paired["p_value"]) == (-0.0123, 0.2)


def test_subgroups_stand_in_the_twin_with_gap_and_reason(written):
    _, twin = written
    sex = twin["subgroups"]["sex"]
    assert 0.4 < sex["levels"]["female"]["response_auc"]["value"] < 1
    gap = sex["gaps"]["response_auc"]
    assert gap["ci_low"] < gap["value"] < gap["ci_high"]
    assert {gap["best"], gap["worst"]} == {"female", "male"}
    youngest = twin["subgroups"]["age"]["levels"]["below 40"]["c_index"]
    assert youngest["value"] is None
    assert "fewer than 20 patients" in youngest["reason"]


def test_funnel_and_availability_of_every_hospital(written):
    page, twin = written
    site = {entry["site_id"]: entry for entry in twin["sites"]}
    funnel = {name: int(count) for name, count in site["a"]["funnel"].items()}
    assert funnel["listed"] == funnel["labelled"] == funnel["usable"] == site["a"]["n"]
    assert funnel["train"] + funnel["held_out"] == funnel["usable"]
    assert site["c"]["available"] == {"table": "100 %", "scan": "0 %"}
    assert re.fullmatch(r"[0-9]{2} %", site["a"]["available"]["scan"])
    assert sum(entry["share_of_training_patients"] for entry in site.values()) == pytest.approx(1)
    assert all(entry["rounds"] == 15 for entry in site.values())
    assert "in the manifest" in page


def test_auc_over_time_passes_through_the_figures_at_the_horizons(written):
    _, twin = written
    curve = {point["months"]: point for point in twin["auc_over_time"]}
    assert len(curve) > 10
    for months in (12, 36):
        assert curve[months]["auc"] == pytest.approx(twin["global"][f"auc_{months}m"])
        assert curve[months]["auc_ci"] == twin["global"][f"auc_{months}m_ci"]
