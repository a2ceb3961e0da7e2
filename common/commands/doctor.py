"""Run preflight checks, each with a finding and, if it fails, how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from common.commands.cli_output import Output
from common.errors import TumorboardError

Status = Literal["ok", "warning", "problem"]
_ORDER: tuple[Status, ...] = ("ok", "warning", "problem")


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: What was looked at, one or two words.
        status: ok; warning (works now, look at it soon); problem (will not work).
        found: What was found.
        cure: What to do about it; empty if ok.
    """

    check: str
    status: Status
    found: str
    cure: str = ""


Check = Callable[[], Iterable[Finding]]


def examine(checks: Iterable[tuple[str, Check]]) -> list[Finding]:
    """Run all checks; one that fails becomes a problem with its own cure, and the others go on.

    Args:
        checks: Name and check; the name is used where the check itself cannot report.
    """
    findings: list[Finding] = []
    for name, check in checks:
        findings += _guarded(name, check)
    return findings


def worst(findings: Iterable[Finding]) -> Status:
    """Return the worst status of some findings."""
    return max((f.status for f in findings), key=_ORDER.index, default="ok")


def show(findings: list[Finding], output: Output) -> int:
    """Print findings with their cures and return the exit status: 1 if there is a problem."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        output.say(f"{finding.status:8} {finding.check:{width}}  {finding.found}")
        if finding.cure:
            output.say(f"{'':8} {'':{width}}  fix: {finding.cure}")
    counts = {status: sum(f.status == status for f in findings) for status in _ORDER}
    output.say(
        f"{counts['problem']} problem(s), {counts['warning']} warning(s), {counts['ok']} in order."
    )
    overall = worst(findings)
    output.result({"status": overall, "findings": [asdict(finding) for finding in findings]})
    return int(overall == "problem")


def _guarded(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except TumorboardError as error:
        where = f" ({error.where})" if error.where else ""
        why = f": {error.why}" if error.why else ""
        found = f"[{error.code}] {error.what}{where}{why}"
        yield Finding(name, "problem", found, error.cure or "see the handbook, errors by code")
    except OSError as error:
        cure = "check that the path exists and that this account may read it"
        yield Finding(name, "problem", str(error), cure)
