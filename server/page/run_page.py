"""Build the web application of the coordinator's page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fastapi import FastAPI

from common.page.application import Content, live_page
from server.page.consortium_files import newest_run, read_consortium
from server.page.run_files import read_run_files
from server.page.run_view import content_of, view_run


def run_page(folder: Path) -> FastAPI:
    """Return the page about a run.

    Args:
        folder: Folder of the run, or the coordinator's, whose newest run is shown.
    """

    def read() -> Content:
        now = datetime.now(UTC)
        files = read_run_files(newest_run(folder))
        return content_of(view_run(files, consortium=read_consortium(folder, now), now=now))

    return live_page(
        read,
        package="server.page",
        template="run.html.j2",
        report=lambda: newest_run(folder) / "report.html",
    )
