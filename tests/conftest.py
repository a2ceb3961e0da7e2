"""Fixtures every test may use."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data folder, or skip."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TUMORBOARD_SHARED_DATA", default))
    if not (folder / "README.md").is_file():
        pytest.skip(f"real data absent at {folder}; set TUMORBOARD_SHARED_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def chromium():
    """A real Chromium under Playwright, or skip.

    Names under `evil.example` lead to this machine, as in DNS rebinding.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--host-resolver-rules=MAP *.evil.example 127.0.0.1"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()
