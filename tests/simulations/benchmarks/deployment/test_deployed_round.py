"""The benchmark in miniature, over real processes, with no virtual environment on the PATH."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from simulations.benchmarks.deployment.deployed_round import FULL, MINIATURE, checks


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ours_stock_and_secured_stock_run_and_a_round_takes_no_longer_than_stock(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    secured, plain, line = checks(Path(), replace(MINIATURE, rivals=FULL.rivals))
    assert all(math.isfinite(check.value) and check.holds for check in (secured, plain, line))
    assert line.value > 2 * 4 * 500 / 2**10
    for kind in ("SuperLink", "SuperNode", "server app", "relay", "agent"):
        assert kind in secured.note.partition("stock:")[0]
    for kind in ("SuperLink", "SuperNode", "server app", "client app"):
        assert kind in secured.note.partition("stock:")[2]
        assert kind in plain.note
