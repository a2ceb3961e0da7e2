"""Figures of a report on matplotlib axes show the numbers of its frames."""

import json

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot

from common.errors import ConfigError
from server.report.report_frames import Report, read_report

mpl.use("agg")


@pytest.fixture
def report(written, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(written[1]))
    yield read_report(tmp_path)
    pyplot.close("all")


def test_learning_is_the_curve_of_the_rounds(report):
    line = report.plot_learning("loss").lines[0]
    np.testing.assert_array_equal(line.get_xdata(), report.learning_curve.index)
    np.testing.assert_allclose(line.get_ydata(), report.learning_curve["loss"])
    with pytest.raises(ConfigError, match="unknown figure of a round 'los'"):
        report.plot_learning("los")


@pytest.mark.parametrize("metric", ["c_index", "response_auc"])
def test_metric_has_a_row_per_hospital_and_baseline(report, metric):
    ax = report.plot_metric(metric)
    rows = report.metrics.query("metric == @metric and scope != 'without'")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == list(rows["name"])[::-1]
    marks = {line.get_xdata()[0] for line in ax.lines if line.get_marker() != "None"}
    assert marks == set(rows["value"].dropna())
    with pytest.raises(ConfigError, match="unknown metric of this report"):
        report.plot_metric("response_brier")


def test_survival_steps_through_the_curves_of_the_risk_groups(report):
    ax = report.plot_survival()
    curves = report.survival_curves.groupby("label")
    assert {line.get_label() for line in ax.lines} == {"low risk", "high risk"}
    for line in ax.lines:
        rows = curves.get_group(line.get_label())
        np.testing.assert_allclose(line.get_ydata()[1:], rows["survival"])
        np.testing.assert_allclose(line.get_xdata()[1:], rows["time_months"])
    assert "log-rank p" in ax.get_title()


def test_calibration_is_drawn_by_outcome(report):
    for outcome, rows in report.calibration.groupby("outcome"):
        line = report.plot_calibration(outcome).lines[-1]
        np.testing.assert_allclose(line.get_xdata(), rows["predicted"])
        np.testing.assert_allclose(line.get_ydata(), rows["observed"])
    with pytest.raises(ConfigError, match="no outcome 'weather'"):
        report.plot_calibration("weather")


def test_roc_encloses_the_auc(report):
    line = report.plot_roc().lines[-1]
    area = np.trapezoid(line.get_ydata(), line.get_xdata())
    assert area == pytest.approx(report.content["global"]["response_auc"], abs=0.02)


def test_figures_go_where_they_are_asked_to(report):
    for draw in (report.plot_learning, report.plot_metric, report.plot_survival, report.plot_roc):
        ax = pyplot.figure().subplots()
        assert draw(ax=ax) is ax


@pytest.mark.parametrize("part", ["roc", "survival_curves", "calibration"])
def test_what_the_study_has_not_is_refused_in_words(report, part):
    lacking = Report(report.content | {part: None})
    with pytest.raises(ConfigError, match=f"this report has no {part.replace('_', ' ')}"):
        getattr(lacking, f"plot_{part.removesuffix('_curves')}")()
