"""A page names the run that was refused: it need not be the one the page is about."""

from datetime import UTC, datetime

from common.page.audit_tail import AuditRow, refusals


def row(run, code="TB503"):
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return AuditRow(1, time, "not enrolled", "hospital-a", run, None, code)


def test_refusals_are_counted_by_run_and_name_it():
    rows = [row("first"), row("first"), row("second"), row("first", code=""), row("")]
    told = [problem.what for problem in refusals(rows)]
    assert len(told) == 3
    assert "Refused 2 times" in next(t for t in told if "not enrolled of run first." in t)
    assert "Refused once" in next(t for t in told if "not enrolled of run second." in t)
    assert any("not enrolled. " in t for t in told)
