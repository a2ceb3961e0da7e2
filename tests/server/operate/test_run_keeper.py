"""Wanted runs are started, and started again, but never one that ended by its own reason."""

import threading
from types import SimpleNamespace

import pytest

from common.errors import ErrorCode
from common.storage.file_lock import held_alone
from server.consortium.consortium_folder import ConsortiumFolder
from server.operate import run_keeper
from server.operate.run_folder import RunFolder
from server.operate.run_keeper import MAX_STARTS, START_S, RunKeeper
from server.session.run_state import RunState


@pytest.fixture
def starts(monkeypatch):
    calls = []
    monkeypatch.setattr(run_keeper, "start_run", lambda _f, config: calls.append(config) or "17")
    return calls


@pytest.fixture
def run(tmp_path):
    made = RunFolder(tmp_path / "run-1")
    made.path.mkdir()
    made.request_start()
    return made


def keeper():
    return RunKeeper(SimpleNamespace(roster=None))


def save(run, phase, number=0, reason=None):
    RunState(
        run_id="r",
        study_digest="a",
        code_digest="b",
        phase=phase,
        round=number,
        rounds=9,
        reason=reason,
    ).save(run.path)


def test_wanted_run_is_started_once(run, starts):
    kept = keeper()
    for now in (0.0, 1.0, START_S - 1):
        kept.look_after(run, now)
    assert starts == [{"study": str(run.study_file), "run-dir": str(run.path)}]
    assert run.flower_run == "17"


def test_held_run_is_left_alone(run, starts):
    with held_alone(run.path / "lock", ValueError()):
        keeper().look_after(run, 0.0)
    assert starts == []


def test_run_whose_server_app_was_killed_is_started_again(run, starts):
    kept = keeper()
    kept.look_after(run, 0.0)
    save(run, "round", 3)
    kept.look_after(run, 50.0)
    assert len(starts) == 2


def test_run_that_lost_flower_is_started_again(run, starts):
    kept = keeper()
    kept.look_after(run, 0.0)
    save(run, "failed", 3, f"{ErrorCode.TRANSPORT}: Flower has ended the run")
    kept.look_after(run, 50.0)
    assert len(starts) == 2
    assert run.is_requested


@pytest.mark.parametrize("phase", ["done", "failed", "stopped"])
def test_run_that_ended_by_itself_is_not_started_again(phase, run, starts):
    kept = keeper()
    kept.look_after(run, 0.0)
    save(run, phase, 3, f"{ErrorCode.QUORUM}: too few sites")
    kept.look_after(run, 50.0)
    assert len(starts) == 1
    assert not run.is_requested


def test_failed_run_that_is_wanted_anew_is_started(run, starts):
    save(run, "failed", 3, f"{ErrorCode.QUORUM}: too few sites")
    kept = keeper()
    kept.look_after(run, 0.0)
    kept.look_after(run, 1.0)
    assert len(starts) == 1
    assert run.is_requested


def test_run_without_progress_is_given_up_with_a_reason(run, starts):
    save(run, "round", 3)
    kept = keeper()
    for attempt in range(MAX_STARTS + 2):
        if run.is_requested:
            kept.look_after(run, attempt * 1000.0)
    assert len(starts) == MAX_STARTS
    assert not run.is_requested
    assert run.state().phase == "failed"
    assert run.state().reason.startswith(str(ErrorCode.TRANSPORT))


def test_progress_earns_new_starts(run, starts):
    kept = keeper()
    for attempt in range(3 * MAX_STARTS):
        save(run, "round", attempt)
        kept.look_after(run, attempt * 1000.0)
    assert len(starts) == 3 * MAX_STARTS


def test_a_damaged_run_does_not_keep_the_others_from_starting(tmp_path, starts, monkeypatch):
    folder = ConsortiumFolder(tmp_path)
    for name in ("a-damaged", "b-well"):
        run = RunFolder(folder.runs / name)
        run.path.mkdir(parents=True)
        run.study_file.touch()
        run.request_start()
    (folder.runs / "a-damaged" / "run.json").write_text("{")
    monkeypatch.setattr(run_keeper, "is_superlink_healthy", lambda _: True)
    kept = RunKeeper(folder)
    monkeypatch.setattr(kept, "_nodes", SimpleNamespace(update=lambda: None))
    stop = threading.Event()
    monkeypatch.setattr(run_keeper, "LOOK_S", 0.01)
    threading.Timer(0.5, stop.set).start()
    kept.run(stop)
    assert [config["run-dir"] for config in starts] == [str(folder.runs / "b-well")]
