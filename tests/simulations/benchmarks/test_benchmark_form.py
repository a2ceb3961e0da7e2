"""The form every benchmark keeps: list, JSON on the last line, exit status."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import DataError
from simulations.benchmarks.__main__ import benchmarks, main
from simulations.benchmarks.parts.check import Check, run


@pytest.mark.parametrize(
    ("value", "op", "holds"),
    [
        (1.0, "<=", True), (1.1, "<=", False), (1.0, "<", False), (0.9, "<", True),
        (1.0, ">=", True), (0.9, ">=", False), (1.0, ">", False), (1.1, ">", True),
        (1.0, "==", True), (1.1, "==", False),
        (None, "<=", False), (math.nan, "<=", False), (math.nan, ">=", False),
    ],
)  # fmt: skip
def test_holds(value: float | None, op: str, holds: bool) -> None:
    assert Check("x", value, 1.0, op).holds is holds  # type: ignore[arg-type]


def outcome(
    capsys: pytest.CaptureFixture[str], *checks: Check, arguments: list[str]
) -> tuple[int, str]:
    def measured(data: Path) -> Iterator[Check]:
        assert data == Path("somewhere")
        yield from checks

    with pytest.raises(SystemExit) as caught:
        run("demo", measured, seeds=[3], arguments=["--data", "somewhere", *arguments])
    return int(caught.value.code or 0), capsys.readouterr().out


def test_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    checks = (Check("a", 1.0, 2.0, "<="), Check("b", math.inf, 2.0, "<=", note="why"))
    status, out = outcome(capsys, *checks, arguments=["--json"])
    told = json.loads(out.splitlines()[-1])
    assert told == {
        "name": "demo",
        "seeds": [3],
        "checks": [
            {"what": "a", "value": 1.0, "bound": 2.0, "op": "<=", "holds": True},
            {"what": "b", "value": None, "bound": 2.0, "op": "<=", "holds": False, "note": "why"},
        ],
    }
    assert status == 1


def test_status_is_0_only_if_something_was_checked_and_all_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome(capsys, Check("a", 1.0, 2.0, "<="), arguments=[])[0] == 0
    assert outcome(capsys, arguments=[])[0] == 1
    status, out = outcome(capsys, Check("a", None, 2.0, "<="), arguments=[])
    assert status == 1
    assert out == "FAILS  a: not measured <= 2\n"


def test_error_is_told_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(data: Path) -> Iterator[Check]:
        raise DataError("no data", where=str(data))
        yield

    with pytest.raises(SystemExit) as caught:
        run("demo", broken, seeds=[], arguments=[])
    assert caught.value.code == 1
    assert "no data" in capsys.readouterr().err


def test_list_names_benchmarks_and_only_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "speed.py").write_text('"""Speed.\n\nMore."""\nDURATION = "1 s"\nraise OSError\n')
    (tmp_path / "shared_part.py").write_text('"""No benchmark."""\n')
    assert [(b.name, b.shows, b.duration) for b in benchmarks(tmp_path)] == [
        ("speed", "Speed.", "1 s")
    ]
    main()
    assert "extraction_reference" in capsys.readouterr().out
