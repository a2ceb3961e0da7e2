"""Commands that go on by themselves, started for real: what they die of is told at once."""

import json
import time

import pytest

from common.errors import ConfigError, ErrorCode, TumorboardError, error_in
from common.process import background
from common.process.background import BackgroundStart
from common.process.supervisor import read_supervised, stop_supervised

SUPERVISE = """
import sys
from pathlib import Path
from common.process.stop_signals import stop_on_signals
from common.process.supervisor import Child, Supervisor
folder = Path(sys.argv[1])
child = Child("child", (sys.executable, "-c", (folder / "child.py").read_text()), folder / "c.log")
Supervisor([child], folder / "status.json").run(stop_on_signals())
"""
OWN_ERROR = """
import sys
print("[TB100] the key is gone\\n  where: /x\\n  fix:   restore it", file=sys.stderr)
sys.exit(2)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a supervisor of one child, or something else, as a command of ours."""
    made = []

    def begin(child, *, ready=lambda: False, main=SUPERVISE):
        (tmp_path / "child.py").write_text(child)
        monkeypatch.setattr(background, "_ENTRY", main)
        made.append(
            BackgroundStart(
                [str(tmp_path)],
                tmp_path / "up.log",
                tmp_path / "status.json",
                ready,
                30.0,
                "it does not serve",
            )
        )
        made[-1].run()

    yield begin
    stop_supervised(tmp_path / "status.json")


def status(tmp_path):
    return read_supervised(tmp_path / "status.json")


def test_returns_when_ready_and_the_command_goes_on(start, tmp_path):
    start("import time; time.sleep(99)", ready=lambda: status(tmp_path) is not None)
    assert status(tmp_path).children["child"]["pid"]


def test_a_command_that_dies_is_told_in_its_own_words(start, tmp_path):
    with pytest.raises(TumorboardError) as caught:
        start("", main=OWN_ERROR)
    assert str(caught.value) == ("[TB100] the key is gone\n  where: /x\n  fix:   restore it")
    assert caught.value.exit_status == 2


def test_a_command_that_dies_without_a_word_shows_its_log(start, tmp_path):
    with pytest.raises(ConfigError, match="it does not serve") as caught:
        start("", main="raise KeyError('odd')")
    assert "KeyError: 'odd'" in caught.value.why


def test_the_own_error_of_a_child_ends_the_start_and_what_was_started(start, tmp_path):
    (tmp_path / "c.log").write_text("[TB601] of yesterday\n")
    began = time.monotonic()
    with pytest.raises(TumorboardError, match="the key is gone"):
        start(OWN_ERROR)
    assert time.monotonic() - began < 20
    assert status(tmp_path) is None


def test_a_child_that_ends_again_and_again_is_given_up(start, tmp_path):
    with pytest.raises(ConfigError) as caught:
        start("raise OSError('address in use')")
    assert "address in use" in caught.value.why
    assert caught.value.where == str(tmp_path / "c.log")
    assert status(tmp_path) is None


def test_errors_are_read_as_they_are_printed():
    told = TumorboardError("w", where="here", why="a\n  b: c", cure="d", code=ErrorCode.BUDGET)
    again = error_in(f"starting\n[TB100] earlier\n{told}\n")
    assert again.code == ErrorCode.BUDGET
    assert (again.what, again.where, again.cure, again.exit_status) == ("w", "here", "d", 3)
    assert error_in("nothing") is None
    assert error_in("[TB999] of another version") is None
    assert json.loads(json.dumps(again.as_dict()))["code"] == "TB410"
