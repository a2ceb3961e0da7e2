"""Metrics of a run as a table, in TensorBoard's own format, and in MLflow."""

import csv
import json
import struct
import sys

import pytest
from page_runs import WrittenRun

from common.commands import cli
from common.errors import ConfigError
from server.operate.metric_export import log_to_mlflow, read_metric_history, write_tensorboard


@pytest.fixture
def run(tmp_path):
    made = WrittenRun(tmp_path / "run")
    made.enrol()
    made.commit(loss=1.5)
    made.commit(loss=1.25, missing={"site-c": "silent"})
    report = {"global": {"c_index": 0.75, "c_index_ci": [0.6, 0.9], "auc_reason": "too few"}}
    (made.folder / "report.json").write_text(json.dumps(report))
    return made


@pytest.fixture
def call(monkeypatch, capsys):
    def calling(*words):
        monkeypatch.setattr(sys, "argv", ["tumorboard", "server", "export", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as left:
            status = left.code or 0
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return status, told.out, told.err

    return calling


def by_name(history, name):
    return [(point.round, point.value) for point in history.points if point.name == name]


def test_points_are_those_of_the_rounds_and_the_report(run):
    history = read_metric_history(run.folder)
    assert by_name(history, "loss") == [(1, 1.5), (2, 1.25)]
    assert by_name(history, "update_norm") == [(1, 1.0), (2, 0.5)]
    assert by_name(history, "sites") == [(1, 3.0), (2, 2.0)]
    assert by_name(history, "final/c_index") == [(2, 0.75)]
    assert not by_name(history, "final/auc_reason")
    assert history.facts["epsilon"] == "8"


def test_csv_json_and_exit_statuses(run, call, tmp_path):
    status, out, _ = call(run.folder)
    rows = list(csv.DictReader(out.splitlines()))
    assert status == 0
    assert {"round": "2", "metric": "loss", "value": "1.25"} in rows
    assert call(run.folder, "--csv", tmp_path / "m.csv")[0] == 0
    assert (tmp_path / "m.csv").read_text() == out
    told = json.loads(call(run.folder, "--json")[1])
    assert {"name": "loss", "round": 2, "value": 1.25} in told["points"]
    assert call(tmp_path / "nothing")[0] == 2
    (run.folder / "run.json").write_text("{")
    status, _, err = call(run.folder)
    assert (status, "cannot be read" in err) == (2, True)


def events(folder):
    """Records of TensorBoard event files, read by their framing: length, crc, data, crc."""
    pb = pytest.importorskip("tensorboardX.proto.event_pb2")
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        raw, at = file.read_bytes(), 0
        while at < len(raw):
            (size,) = struct.unpack_from("<Q", raw, at)
            yield pb.Event.FromString(raw[at + 12 : at + 12 + size])
            at += 12 + size + 4


def test_tensorboard_reads_the_same_numbers(run, tmp_path):
    pytest.importorskip("tensorboardX")
    history = read_metric_history(run.folder)
    assert write_tensorboard(history, tmp_path / "logs") == len(history.points)
    found = {
        (value.tag, event.step): value.simple_value
        for event in events(tmp_path / "logs" / history.state.run_id)
        for value in event.summary.value
        if not value.HasField("tensor")
    }
    assert found == pytest.approx({(p.name, p.round): p.value for p in history.points})
    with pytest.raises(ConfigError, match="before"):
        write_tensorboard(history, tmp_path / "logs")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_mlflow_reads_the_same_numbers(run, tmp_path):
    pytest.importorskip("mlflow.tracking")
    history = read_metric_history(run.folder)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    number = log_to_mlflow(history, uri)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    for name in ("loss", "final/c_index"):
        found = [(m.step, m.value) for m in client.get_metric_history(number, name)]
        assert found == by_name(history, name)
    logged = client.get_run(number)
    assert logged.data.params == history.facts
    assert logged.info.status == "FINISHED"
    with pytest.raises(ConfigError, match="MLflow does not take"):
        log_to_mlflow(history, "no-such-scheme://x")


def test_a_missing_tracker_is_told_with_its_extra(run, monkeypatch, call, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    status, _, err = call(run.folder, "--tensorboard", tmp_path / "logs")
    assert status == 2
    assert "tumorboard[tracking]" in err
