"""Frames of a report hold the numbers of its twin."""

import json

import numpy as np
import pytest

from common.errors import ConfigError
from server.report.report_frames import read_report


@pytest.fixture
def report(written, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(written[1]))
    return read_report(tmp_path)


def test_every_metric_of_the_twin_stands_in_one_row(report, written):
    twin = written[1]
    table = report.metrics.set_index(["scope", "name", "metric"]).sort_index()
    assert table.index.is_unique
    everywhere = table.loc[("all", "federated")]
    for metric, row in everywhere.iterrows():
        told = [twin["global"][metric], *twin["global"].get(f"{metric}_ci", [None, None])]
        shown = [row["value"], row["ci_low"], row["ci_high"]]
        shown = [None if np.isnan(number) else number for number in shown]
        assert shown == told, metric
    beside = ("_reason", "_caveat", "_ci", "_error_bound", "_noise_sd")
    assert set(everywhere.index) == {key for key in twin["global"] if not key.endswith(beside)}
    for site in twin["sites"]:
        assert table.loc[("hospital", site["site_id"], "c_index"), "value"] == site["c_index"]
    missing = table[table["value"].isna()]
    assert missing["note"].notna().all(), "an absent value says why"
    assert table.loc[("baseline", "pooled", "c_index"), "value"] == 0.7


def test_frames_have_a_row_per_hospital_round_time_and_group(report, written):
    twin = written[1]
    assert list(report.hospitals.index) == ["a", "b", "c"]
    assert list(report.hospitals["n"]) == [site["n"] for site in twin["sites"]]
    assert list(report.learning_curve.index) == list(range(1, 16))
    assert (report.learning_curve["loss"].diff().dropna() < 0).all()
    curves = report.survival_curves
    assert len(curves) == sum(len(curve["survival"]) for curve in twin["survival_curves"])
    assert (curves["ci_low"] <= curves["survival"]).all()
    assert set(report.calibration["outcome"]) == set(twin["calibration"])
    assert report.privacy["mode"] == "none"
    assert "SYNTHETIC" in repr(report)


def test_what_is_no_report_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no report"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({"sites": []}))
    with pytest.raises(ConfigError, match="no report"):
        read_report(tmp_path / "report.json")
