"""What a benchmark says when something does not come up."""

import pytest

from common.errors import RunError
from simulations.deployed.bench_run import SHOWN_LINES, run_app, wait_until
from simulations.deployed.stock_round import _flwr


def test_the_error_quotes_the_ends_of_the_logs_and_the_last_reason(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "link.log").write_text("\n".join(f"line {n}" for n in range(20)) + "\n\n")
    (tmp_path / "site" / "node.log").write_text("refused: no such key\n")

    def never():
        raise RunError("the SuperLink did not list its nodes", why="403")

    with pytest.raises(RunError, match="the SuperLink did not come up") as caught:
        wait_until(never, "the SuperLink", 0.3, logs=tmp_path)
    lines = caught.value.why.splitlines()
    assert "403" in caught.value.why.partition("ends:")[0]
    shown = [line.strip() for line in lines if line.strip().startswith("line ")]
    assert shown == [f"line {n}" for n in range(20 - SHOWN_LINES, 20)]
    assert lines[-2:] == ["site/node.log ends:", "    refused: no such key"]


def test_a_run_is_started_with_text_and_read_back(tmp_path):
    given = {}

    def start(config):
        given.update(config)
        (tmp_path / "seconds.json").write_text("[1, 2.5]")

    assert run_app(tmp_path, start, {"rounds": 2}) == [1.0, 2.5]
    assert given == {"rounds": "2", "out": str(tmp_path / "seconds.json")}


def test_flowers_command_is_found_without_the_path_and_its_words_are_quoted(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RunError, match="flwr run") as caught:
        _flwr({"FLWR_HOME": str(tmp_path)}, "run", str(tmp_path / "missing"), "nobody")
    assert "missing" in caught.value.why
