"""The form every benchmark keeps: miniature, JSON on the last line, exit status, one table."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import simulations.benchmarks
from common.errors import DataError
from simulations.benchmarks.parts.catalogue import benchmarks
from simulations.benchmarks.parts.check import Check
from simulations.benchmarks.parts.command import main, parser, run
from simulations.benchmarks.parts.draws import mean_of, median_of

SOURCE = '''"""Show {name}.

More.
"""
from dataclasses import dataclass
from pathlib import Path
from simulations.benchmarks.parts.check import Check, Size

DURATION = "about 2 minutes"

@dataclass(frozen=True)
class Own(Size):
    n: int = 10

FULL, MINIATURE = Own(seeds=(3,)), Own(n=1)

def checks(data, size):
    {body}
'''
GOOD = """yield Check("a", size.n, 5, ">", full_size=True)
    yield Check("b", size.n, 0, ">", "why")"""


@pytest.fixture
def benches(tmp_path, monkeypatch):
    """Make benchmarks of bodies of `checks`, in a topic that only this test has."""

    def make(**bodies):
        topic = tmp_path / "made_up"
        topic.mkdir(exist_ok=True)
        for name, body in bodies.items():
            (topic / f"{name}.py").write_text(SOURCE.format(name=name, body=body))
        return {b.name: b for b in benchmarks(tmp_path)}

    paths = [*simulations.benchmarks.__path__, str(tmp_path)]
    monkeypatch.setattr("simulations.benchmarks.__path__", paths)
    yield make
    for name in [name for name in sys.modules if name.startswith("simulations.benchmarks.made_up")]:
        del sys.modules[name]


def command(*arguments):
    """Run the command line here and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["benchmarks"])
        with pytest.raises(SystemExit) as caught:
            main(*arguments)
    return caught.value.code


@pytest.mark.parametrize(
    ("value", "op", "holds"),
    [
        (1.0, "<=", True), (1.1, "<=", False), (1.0, "<", False), (0.9, "<", True),
        (1.0, ">=", True), (0.9, ">=", False), (1.0, ">", False), (1.1, ">", True),
        (1.0, "==", True), (1.1, "==", False), (9.9, "finite", True), (math.inf, "finite", False),
        (None, "<=", False), (math.nan, "<=", False), (math.nan, ">=", False),
    ],
)  # fmt: skip
def test_holds(value, op, holds):
    assert Check("x", value, 1.0, op).holds is holds


def test_json_has_no_infinity():
    told = Check("b", math.inf, 2.0, "<=", note="why").as_dict()
    assert told == {
        "what": "b", "value": None, "bound": 2.0, "op": "<=", "holds": False, "note": "why",
    }  # fmt: skip


def test_a_full_run_begins_with_the_miniature_and_ends_with_json(benches, capsys):
    made = benches(good=GOOD)["good"]
    assert run(made, parser().parse_args(["--json"])) == 0
    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[-1])
    assert (told["name"], told["seeds"]) == ("good", [3])
    values = {check["what"]: (check["value"], check["op"]) for check in told["checks"]}
    shared = "checks that miniature and full size do not share"
    assert values == {"a": (10, ">"), "b": (10, ">"), shared: (0, "==")}
    assert all(check["seconds"] >= 0 for check in told["checks"])
    assert err.index("good, in miniature") < err.index("good, at full size")


def test_a_miniature_is_not_held_to_a_bound_of_the_full_size(benches, capsys):
    assert run(benches(good=GOOD)["good"], parser().parse_args(["--miniature"])) == 0
    assert capsys.readouterr().out == "holds  a: 1 finite\nholds  b: 1 > 0 (why)\n"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('yield Check("a", size.n, 5, ">", full_size=True)', 0),
        ('yield Check("a", size.n, 5, ">")\n    yield Check(f"{size.n}", 1, 0, ">")', 1),
        ('yield Check("a", None, 5, ">", full_size=True)', 1),
        ("yield from ()", 1),
    ],
)
def test_status_is_0_only_if_all_holds_and_the_names_are_the_same(benches, body, status):
    assert run(benches(one=body)["one"], parser().parse_args([])) == status


def test_missing_data_and_unknown_names_are_errors(tmp_path, capsys):
    assert command("nothing") != 0
    assert "no benchmark named 'nothing'" in capsys.readouterr().err
    assert command("robust_rules", "--data", str(tmp_path)) == DataError("").exit_status
    assert "multicentre_survival" in capsys.readouterr().err


def test_list_names_benchmarks_and_only_them(benches, tmp_path, capsys):
    (tmp_path / "shared_part.py").write_text('"""No benchmark."""\n')
    made = benches(speed="raise OSError")
    assert [(b.name, b.shows) for b in made.values()] == [("speed", "Show speed.")]
    assert command() == 0
    assert "extraction_reference" in capsys.readouterr().out


def test_help_has_an_example(capsys):
    assert command("--help") == 0
    assert "python -m simulations.benchmarks all --data" in capsys.readouterr().out


def test_all_goes_on_past_what_cannot_run_and_shows_one_table(tmp_path, capfd):
    out = ["--miniature", "--out", str(tmp_path), "--data", str(tmp_path)]
    assert command("all", "--only", "robust_rules", "secure_sum", *out) == 1
    table, _, rest = capfd.readouterr().out.partition("\nrobust_rules did not end:")
    rows = [line.split("  ")[0] for line in table.splitlines()]
    assert rows[0].strip() == "benchmark"
    assert rows[2:] == ["robust_rules", "secure_sum"]
    assert "integer sum off the float sum, relative, worst of all seeds: " in table
    assert "real data that is not there" in rest
    log = tmp_path / "secure_sum.log"
    log.unlink()
    assert command("all", "--only", "secure_sum", "--json", *out) == 0
    (found,) = json.loads(capfd.readouterr().out)["benchmarks"]
    assert all(check["holds"] for check in found["checks"])
    assert not log.exists()  # it was not run again
    assert command("all", "--only", "secure_sum", "--again", *out) == 0
    assert log.exists()


def test_all_goes_on_after_a_kill_and_leaves_nothing_running(tmp_path):
    """Killed with -9 in its second benchmark, with no virtual environment on the PATH."""
    names = ["secure_sum", "privacy_core"]
    line = [sys.executable, "-m", "simulations.benchmarks", "all", "--miniature", "--json"]
    line += ["--out", str(tmp_path), "--only", *names]
    bare = {**os.environ, "PATH": os.defpath}
    process = subprocess.Popen(line, env=bare, stderr=subprocess.DEVNULL)
    first, second = (tmp_path / f"{name}.json" for name in names)
    _wait(lambda: "holds" in _text(second.with_suffix(".log")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.is_file()
    assert not second.exists()
    _wait(lambda: not _running_in(tmp_path), seconds=3)
    finished = first.stat().st_mtime_ns
    ended = subprocess.run(line, env=bare, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert [found["name"] for found in json.loads(ended.stdout)["benchmarks"]] == names
    assert first.stat().st_mtime_ns == finished
    assert "secure_sum, finished before" in ended.stderr


def _text(path):
    return path.read_text() if path.exists() else ""


def _wait(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _running_in(folder):
    """Return the processes that hold a log of this folder open."""
    held = []
    for link in Path("/proc").glob("[0-9]*/fd/2"):
        with suppress(OSError):
            held += [link] if str(folder) in str(link.readlink()) else []
    return held


def test_mean_and_median_over_draws():
    mean = mean_of([1.0, 2.0, 3.0, 6.0])
    assert (mean.value, mean.n) == (3.0, 4)
    assert mean.error == pytest.approx(2.160 / 2, abs=1e-3)
    half = 3.1824 * mean.error  # t of 3 degrees of freedom, from a table
    assert (mean.low, mean.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    median = median_of([float(i) for i in range(1, 11)])
    assert (median.value, median.low, median.high) == (5.5, 2.0, 9.0)  # ranks of every table
