"""Write the report of a run."""

import json
from pathlib import Path

from common.storage.atomic_file import write_text
from server.report.content import ReportContent
from server.report.json_twin import report_json
from server.report.page import model_card, report_html, study_card


def build_report(content: ReportContent, folder: Path) -> tuple[Path, Path]:
    """Write the report whole into `folder`; return the paths of the page and its JSON twin.

    Files: `report.html`, `report.json`, `study_card.md` (items of TRIPOD+AI), `model_card.md`.
    """
    page, twin = folder / "report.html", folder / "report.json"
    write_text(page, report_html(content))
    text = json.dumps(report_json(content), indent=1, allow_nan=False, ensure_ascii=False)
    write_text(twin, text + "\n")
    write_text(folder / "study_card.md", study_card(content))
    write_text(folder / "model_card.md", model_card(content))
    return page, twin
