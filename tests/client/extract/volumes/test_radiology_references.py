"""Every figure of the benchmark holds, on the published and the real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.benchmarks.parts import radiomics_reference_checks

pytest.importorskip("SimpleITK")


def failing(data: Path) -> list[str]:
    found = list(radiomics_reference_checks.checks(data))
    assert len(found) > 20
    return [check.what for check in found if not check.holds]


@pytest.mark.shared_data
def test_checks_hold_on_one_case(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radiomics_reference_checks, "CASES", ("breast1",))
    monkeypatch.setattr(radiomics_reference_checks, "N_SYNTHETIC", 2)
    assert failing(shared_data) == []


@pytest.mark.slow
@pytest.mark.shared_data
def test_checks_hold_on_all_cases(shared_data: Path) -> None:
    assert failing(shared_data) == []
