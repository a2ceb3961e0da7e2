"""What the coordinator's page says agrees with the files, whatever state they are in."""

import json
import random
import re
import threading
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from fastapi.testclient import TestClient
from page_runs import SITES, WrittenRun, page_study
from tiny_consortium import tiny_study

from common.error_guide import GUIDES
from common.errors import ErrorCode
from common.storage.file_lock import held_alone, is_held
from server.page import run_files
from server.page.run_files import read_run_files
from server.page.run_view import run_page, view_run
from server.page.site_rows import evaluation_promised


@pytest.fixture
def run(tmp_path):
    made = WrittenRun(tmp_path / "run")
    with held_alone(made.folder / "lock", ValueError()):
        yield made


def seen(run, **changes):
    return view_run(read_run_files(run.folder), **changes)


def problems(run, **changes):
    return {(p.weight, p.where, p.code) for p in seen(run, **changes).problems}


@cache
def client_of(folder) -> TestClient:
    return TestClient(run_page(folder), base_url="http://localhost")


def page(folder) -> str:
    client = client_of(folder)
    answers = [client.get(path) for path in ("/", "/live", "/status.json")]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    json.loads(answers[2].text)
    return answers[1].text


def test_rounds_time_and_budget_of_a_run_under_way(run):
    run.enrol()
    for seconds in (30.0, 2.0, 4.0, 3.0, 2.0):
        run.commit(seconds=seconds)
    view = seen(run)
    assert (view.done_rounds, view.rounds, view.phase) == (5, 20, "Training: round 6 of 20")
    assert view.round_seconds == 3.0
    assert view.left_seconds == 45.0
    assert abs(view.finish - datetime.now(UTC) - timedelta(seconds=45)) < timedelta(seconds=20)
    assert [row.epsilon for row in view.sites] == [4.0, 4.0, 4.0]
    assert {row.epsilon_promised for row in view.sites} == {8.0}
    assert {row.evaluation_promised for row in view.sites} == {6.0}
    assert {row.standing for row in view.sites} == {"answered in round 5"}
    assert view.problems == []
    assert [chart.name for chart in view.charts] == ["update_norm", "sites", "seconds"]
    text = page(run.folder)
    assert "about 45 s" in text
    assert re.search(r'<progress max="20" value="5"', text)


def test_evaluation_cost_is_that_of_the_tasks_asked_for():
    endpoints = {"survival": {"edges_months": [0, 12, 24], "horizons_months": [12]}}
    study = page_study().model_copy(
        update={"endpoints": type(page_study().endpoints).model_validate(endpoints)}
    )
    assert (evaluation_promised(page_study()), evaluation_promised(study)) == (6.0, 4.0)
    assert evaluation_promised(tiny_study()) is None


def test_losses_are_drawn_where_they_are_known(tmp_path):
    made = WrittenRun(tmp_path, tiny_study())
    made.enrol()
    made.commit(loss=1.5)
    view = seen(made)
    assert view.charts[0].name == "loss"
    assert view.sites[0].epsilon_promised is None
    assert "no noise" in page(tmp_path)


def test_a_phase_has_words_and_nothing_is_left_when_done(run):
    assert seen(run).phase.startswith("Enrolling")
    run.enrol()
    assert seen(run).phase.startswith("Ready")
    run.commit()
    run.enter(phase="evaluating")
    assert seen(run).phase.startswith("Evaluating")
    run.enter(phase="done")
    assert (seen(run).phase, seen(run).left_seconds) == ("Done", None)


def test_a_failed_run_tells_its_code_and_the_cure_of_the_handbook(run):
    run.enrol()
    run.enter(phase="failed", reason="TB601: round 4 found too few sites in 3 attempts")
    (problem,) = seen(run).problems
    assert (problem.weight, problem.code) == ("stops", "TB601")
    assert problem.what == "round 4 found too few sites in 3 attempts"
    assert GUIDES[ErrorCode.QUORUM].cure in problem.cure
    assert "TB601" in page(run.folder)


@pytest.mark.parametrize("code", [None, *map(str, ErrorCode), "TB999"])
def test_every_refusal_has_words_and_a_cure(run, code):
    run.enrol("site-a", "site-b")
    run.refuse("site-c", code)
    (problem,) = seen(run).problems
    assert (problem.weight, problem.where, problem.code) == ("warns", "site-c", code)
    assert len(problem.cure) > 20
    assert not seen(run).sites[2].well


def test_missing_sites_warn_until_they_answer_again(run):
    run.enrol()
    run.commit()
    run.commit(missing={"site-b": "silent"})
    assert ("warns", "site-b", None) in problems(run)
    assert seen(run).sites[1].standing == "silent in round 2"
    run.commit(missing={"site-c": "TB505"})
    assert ("warns", "site-c", "TB505") in problems(run)
    assert ("notes", "site-b", None) in problems(run)
    for _ in range(10):
        run.commit()
    assert problems(run) == set()


def test_a_quorum_without_a_spare_site_warns(run):
    run.enrol()
    run.commit(missing={"site-a": "silent"})
    assert any("fewest that count" in p.what for p in seen(run).problems)
    run.enter(phase="done")
    assert {p.weight for p in seen(run).problems} == {"notes"}


def test_void_and_repeated_rounds_are_noted(run):
    run.enrol()
    run.commit(attempts=3)
    run.commit(facts={"void": "two shares are missing"})
    told = [p.what for p in seen(run).problems]
    assert any("3 attempts" in what for what in told)
    assert any("two shares are missing" in what for what in told)


def test_overspending_stops(run):
    run.enrol(epsilon_spent=8.2)
    assert {("stops", site, None) for site in SITES} <= problems(run)


def test_a_late_round_warns_by_its_own_pace(run):
    run.enrol()
    run.commit()
    later = datetime.now(UTC) + timedelta(seconds=59)
    assert problems(run, now=later) == set()
    assert len(problems(run, now=later + timedelta(seconds=30))) == 1


def test_a_run_without_a_process_is_told(tmp_path):
    made = WrittenRun(tmp_path)
    made.enrol()
    made.commit()
    assert is_held(tmp_path / "lock") is False
    assert ("stops", "round 1", None) in problems(made)
    assert seen(made).left_seconds is None
    with held_alone(tmp_path / "lock", ValueError()):
        assert is_held(tmp_path / "lock") is True
        assert problems(made) == set()
    assert ("stops", "round 1", None) in problems(made)
    made.enter(phase="done")
    assert problems(made) == set()


def test_a_page_never_stands_in_the_way_of_a_starting_server(tmp_path):
    made = WrittenRun(tmp_path)
    done = threading.Event()

    def read():
        while not done.is_set():
            seen(made)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(200):
            with held_alone(tmp_path / "lock", AssertionError()):
                pass
    finally:
        done.set()
        reader.join()


def test_names_are_shown_as_text(tmp_path):
    sites = [{"site_id": s, "name": "<script>alert(1)</script>"} for s in SITES]
    made = WrittenRun(tmp_path, page_study(title="<img src=x onerror=alert(1)>", sites=sites))
    made.enrol()
    made.enter(phase="failed", reason="TB600: <b>`<i>`</b>")
    text = page(tmp_path)
    assert "<img" not in text
    assert "<script" not in text
    assert "<b>" not in text
    assert "<code>&lt;i&gt;</code>" in text


def spoilt(folder, rng):
    """Every way a file can be wrong, on every file of the run."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.suffix != ".safetensors")
    for file in files:
        whole = file.read_bytes()
        cuts = [b"", b"\xff\xfe", b"null", b"[]", b"{}", b'{"sha256":1}', whole[: len(whole) // 2]]
        cuts += [whole[: rng.randrange(len(whole) or 1)] for _ in range(3)]
        for _ in range(3):
            broken = bytearray(whole or b"x")
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            cuts.append(bytes(broken))
        for content in cuts:
            file.write_bytes(content)
            yield file
        file.unlink()
        yield file
        file.mkdir()
        yield file
        file.rmdir()
        file.write_bytes(whole)


def test_any_missing_or_half_written_file_still_gives_a_page(tmp_path):
    made = WrittenRun(tmp_path)
    made.enrol()
    made.commit()
    made.commit(missing={"site-b": "silent"})
    whole = page(tmp_path)
    for _ in spoilt(tmp_path, random.Random(5)):
        assert "<h2" in page(tmp_path)
    times = re.compile(r"[0-9:-]+ [0-9:]+ UTC")
    assert times.sub("", page(tmp_path)) == times.sub("", whole)


def test_a_damaged_round_shows_the_one_before_it(run):
    run.enrol()
    run.commit()
    run.commit()
    newest = run.folder / "checkpoints" / "round_000002.json"
    newest.write_text(newest.read_text()[:-20])
    view = seen(run)
    assert [record.round for record in view.files.history] == [1]
    assert ("warns", "round_000002.json", None) in problems(run)


def test_a_changed_round_is_not_shown(run):
    run.enrol()
    run.commit()
    run.commit(seconds=2.5)
    newest = run.folder / "checkpoints" / "round_000002.json"
    newest.write_text(newest.read_text().replace('"seconds":2.5', '"seconds":9.5'))
    assert [record.round for record in seen(run).files.history] == [1]


def test_a_round_that_was_replaced_meanwhile_is_no_problem(run, monkeypatch):
    run.enrol()
    run.commit()
    kept = run.folder / "checkpoints" / "round_000001.json"
    gone = kept.with_name("round_000009.json")
    monkeypatch.setattr("server.page.run_files._rounds", lambda _: [gone, kept])
    view = seen(run)
    assert [record.round for record in view.files.history] == [1]
    assert view.files.problems == ()


def test_an_empty_folder_waits_for_a_run(tmp_path):
    assert "No run here yet" in page(tmp_path)
    assert "No run here yet" in page(tmp_path / "not-made-yet")


def test_pages_read_while_the_server_writes_show_no_problem(run):
    run.enrol()
    run.commit()
    done = threading.Event()

    def write():
        for _ in range(40):
            run.commit()
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    rounds = []
    while not done.is_set():
        view = seen(run)
        assert view.files.problems == ()
        assert view.files.history
        rounds.append(view.done_rounds)
    writer.join()
    assert rounds == sorted(rounds)
    assert len(set(rounds)) > 3


def test_rounds_that_are_all_replaced_while_the_page_reads_are_listed_again(run, monkeypatch):
    run.enrol()
    run.commit()
    honest, calls = run_files._rounds, []

    def outdated(folder):
        calls.append(folder)
        return [folder / "round_000000.json"] if len(calls) == 1 else honest(folder)

    monkeypatch.setattr(run_files, "_rounds", outdated)
    assert seen(run).files.history


def test_the_announcement_is_urgent_for_phases_and_problems_alone(run):
    run.enrol()
    run.commit()
    first = seen(run)
    run.commit()
    second = seen(run)
    assert first.announcement != second.announcement
    assert first.urgent == second.urgent
    run.commit(missing={"site-b": "silent"})
    third = seen(run)
    assert third.urgent != second.urgent
    assert "problem" in third.announcement
