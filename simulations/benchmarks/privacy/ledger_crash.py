"""Check that the ledger survives power cuts, damage and rollbacks.

Power cuts stop a hospital's process at a random call to the operating system, inside a write, a
sync or a rename, and lose what was not synced; see `simulations.attackers.power_cut`. No noise is
drawn; the seeds choose moments and places.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common.ledger.ledger import Ledger
from simulations.attackers.ledger_trials import (
    STUDY,
    budget_for,
    crash_trials,
    round_entry,
    undetected_damages,
)
from simulations.benchmarks.parts.check import Check, run

DURATION = "about 4 minutes"
SEEDS = [101, 102, 103]
CUTS = 500
DAMAGES = 10_000


def checks(data: Path) -> Iterator[Check]:
    """Yield the checks; real data is not needed."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _cuts(Path(folder))
        yield from _damages(Path(folder))
        yield from _speed(Path(folder))


def _cuts(folder: Path) -> Iterator[Check]:
    names = ("cuts", "overspends", "lost_commits", "refusals")
    total = dict.fromkeys(names, 0)
    for seed in SEEDS:
        home = folder / f"cuts-{seed}"
        home.mkdir()
        seen = crash_trials(home, CUTS, seed=seed)
        for name in names:
            total[name] += getattr(seen, name)
    yield Check("power cuts at random calls", total["cuts"], 1000, ">=")
    yield Check("overspends and second answers after them", total["overspends"], 0, "==")
    yield Check(
        "answers that had left and were not found committed", total["lost_commits"], 0, "=="
    )
    yield Check("ledgers that a mere power cut made unusable", total["refusals"], 0, "==")


def _damages(folder: Path) -> Iterator[Check]:
    home = folder / "damages"
    home.mkdir()
    unnoticed = undetected_damages(home, DAMAGES, seed=SEEDS[0])
    yield Check(
        f"of {DAMAGES} changed bytes, truncations, swaps, removals, repetitions and rollbacks, "
        "unnoticed",
        len(unnoticed),
        0,
        "==",
        "; ".join(unnoticed[:3]),
    )


def _speed(folder: Path) -> Iterator[Check]:
    home = folder / "speed"
    home.mkdir()
    ledger = Ledger(home / "ledger.jsonl", "trial-site", budget_for(2000))
    costs = []
    for number in range(1, 1001):
        started = time.perf_counter()
        ledger.commit(ledger.reserve(round_entry(number)), "ef" * 32)
        costs.append(time.perf_counter() - started)
    first, last = sorted(costs[:100])[50], sorted(costs[-100:])[50]
    yield Check("median seconds to reserve and commit, rounds 1-100", first, 0.25, "<")
    yield Check("growth of that by round 901-1000", last / first, 3.0, "<")
    started = time.perf_counter()
    lines = ledger.verify()
    yield Check(f"seconds to verify {lines} lines", time.perf_counter() - started, 5.0, "<")
    spent = ledger.spent(STUDY, "train")
    yield Check("error of the sum of 1,000 spends", abs(spent - 10.0), 1e-12, "<")


if __name__ == "__main__":
    run("ledger_crash", checks, seeds=SEEDS)
