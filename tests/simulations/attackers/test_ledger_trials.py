import os
from pathlib import Path

import pytest

from common.ledger.ledger import Ledger
from common.ledger.ledger_file import LedgerFile
from common.storage import durable
from simulations.attackers.ledger_trials import crash_trials, undetected_damages


def check_crashes(folder: Path, cuts: int, seed: int) -> None:
    seen = crash_trials(folder, cuts, seed=seed)
    assert seen.cuts == cuts
    assert (seen.overspends, seen.lost_commits, seen.refusals) == (0, 0, 0), seen.told
    assert seen.studies > cuts / 20  # ledgers were filled to the end in between


def test_power_cuts_lose_no_commit_and_overspend_nothing(tmp_path: Path) -> None:
    check_crashes(tmp_path, 150, seed=11)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_power_cuts(tmp_path: Path) -> None:
    check_crashes(tmp_path, 1500, seed=12)


def test_trial_catches_a_ledger_that_does_not_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(path: Path, data: bytes, *, at: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.lseek(descriptor, at, os.SEEK_SET)
        os.write(descriptor, data)
        os.close(descriptor)

    monkeypatch.setattr(durable, "append", careless)
    seen = crash_trials(tmp_path, 40, seed=13)
    assert seen.overspends + seen.lost_commits + seen.refusals > 0


def test_trial_catches_a_ledger_without_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "require_head", lambda self, head: None)
    monkeypatch.setattr(LedgerFile, "_check_head", lambda self: None)
    assert undetected_damages(tmp_path, 60, seed=14)


def test_damages_are_detected(tmp_path: Path) -> None:
    assert undetected_damages(tmp_path, 300, seed=15) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_damages_are_detected(tmp_path: Path) -> None:
    assert undetected_damages(tmp_path, 10_000, seed=16) == []
