"""Fixtures every test may use."""

import os
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
