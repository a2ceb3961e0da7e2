"""Writes the report of a run."""

from __future__ import annotations

import json
from pathlib import Path

from common.atomic_file import write_text
from server.report.content import ReportContent
from server.report.json_twin import report_json
from server.report.page import report_html


def build_report(content: ReportContent, folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` whole into `folder` and return their paths."""
    page, twin = folder / "report.html", folder / "report.json"
    write_text(page, report_html(content))
    text = json.dumps(report_json(content), indent=1, allow_nan=False, ensure_ascii=False)
    write_text(twin, text + "\n")
    return page, twin
