"""People get text, programs get one JSON object and nothing else."""

import io
import json

import pytest

from common.commands.cli_output import Output, Progress, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_mode_prints_one_object_only(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json_mode=True)
    output.say("hello")
    output.table("t", ["a"], [[1]])
    with output.progress(2, "work") as progress:
        progress.advance()
    output.result({"n": 1, "name": "Zürich", "none": None})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"n": 1, "name": "Zürich", "none": None}
    assert captured.err == ""
    with pytest.raises(ValueError, match="not JSON compliant"):
        output.result({"auc": float("nan")})


def test_text_mode_prints_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({"n": 1})
    assert capsys.readouterr().out == ""


def test_table_aligns_numbers_and_shows_gaps() -> None:
    stream = io.StringIO()
    rows = [["ukb", 120, 0.71234567, True], ["chuv", 9, None, False]]
    Output(stdout=stream).table("Sites", ["site", "n", "auc", "ok"], rows)
    assert stream.getvalue().splitlines() == [
        "Sites",
        "site    n     auc  ok",
        "----  ---  ------  ---",
        "ukb   120  0.7123  yes",
        "chuv    9       -  no",
    ]


def test_empty_table_shows_its_header() -> None:
    stream = io.StringIO()
    Output(stdout=stream).table("", ["a", "bb"], [])
    assert stream.getvalue() == "a  bb\n-  --\n"


def test_progress_on_a_terminal_rewrites_one_line() -> None:
    stream = Terminal()
    with Output(stderr=stream).progress(3, "slides") as progress:
        for _ in range(3):
            progress.advance(note="p1")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "slides: 3/3, in 0 s, p1" in text


def test_progress_in_a_log_is_few_lines() -> None:
    stream = io.StringIO()
    with Output(stderr=stream).progress(1000, "slides") as progress:
        for _ in range(1000):
            progress.advance()
    assert stream.getvalue().splitlines() == ["slides: 0/1000", "slides: 1000/1000, in 0 s"]


def test_progress_says_where_it_stopped() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        stop_after_one(Output(stderr=stream))
    assert stream.getvalue().splitlines()[-1].startswith("slides: 1/3")


def stop_after_one(output: Output) -> None:
    with output.progress(3, "slides") as progress:
        progress.advance()
        raise KeyboardInterrupt


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("common.commands.cli_output.time.monotonic", lambda: self.now)

    def after(self, seconds: float, progress: Progress, n: int = 1) -> float | None:
        """Finish `n` items after so many seconds and return the time left."""
        self.now += seconds
        progress.advance(n)
        return progress.eta_s()


@pytest.fixture
def clock_at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_time_left_is_the_pace_so_far(clock_at: Clock) -> None:
    progress = Progress(10, "x", None)
    assert progress.eta_s() is None
    assert clock_at.after(30, progress, 4) == pytest.approx(45)
    clock_at.now += 5
    assert progress.eta_s() == pytest.approx(40)
    clock_at.now += 500
    assert progress.eta_s() == pytest.approx(37.5)


def test_a_slow_first_round_counts_until_the_second_alone(clock_at: Clock) -> None:
    progress = Progress(100, "rounds", None)
    assert clock_at.after(90, progress) == pytest.approx(90 * 99)
    assert clock_at.after(2, progress) == pytest.approx(2 * 98)
    assert clock_at.after(4, progress) == pytest.approx(3 * 97)


def test_one_round_that_was_tried_again_does_not_count(clock_at: Clock) -> None:
    progress = Progress(100, "rounds", None)
    for _ in range(10):
        clock_at.after(2, progress)
    assert clock_at.after(300, progress) == pytest.approx(2 * 89)


def test_a_lasting_change_of_pace_counts(clock_at: Clock) -> None:
    progress = Progress(1000, "rounds", None)
    for seconds in [1] * 50 + [5] * 20:
        left = clock_at.after(seconds, progress)
    assert left == pytest.approx(5 * 930)


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_workers_that_finish_together(clock_at: Clock, workers: int) -> None:
    progress = Progress(200, "slides", None)
    for _ in range(4):
        clock_at.after(40, progress)
        for _ in range(workers - 1):
            clock_at.after(0.01, progress)
    clock_at.now += 20
    true = 40 / workers * (200 - progress.done)
    assert progress.eta_s() == pytest.approx(true, rel=0.25)


def test_what_was_done_before_tells_nothing_about_the_pace(clock_at: Clock) -> None:
    progress = Progress(100, "rounds", None)
    progress.skip(50, "resumed")
    assert progress.eta_s() is None
    assert clock_at.after(3, progress) == pytest.approx(3 * 49)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
