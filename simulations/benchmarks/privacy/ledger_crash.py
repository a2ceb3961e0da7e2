"""Check that the ledger survives power cuts, damage and rollbacks.

Power cuts stop a hospital's process at a random call to the operating system, inside a write, a
sync or a rename, and lose what was not synced; see `simulations.attackers.power_cut`. No noise is
drawn; the seeds choose moments and places.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from common.ledger.ledger import Ledger
from simulations.attackers.ledger_trials import (
    STUDY,
    budget_for,
    crash_trials,
    round_entry,
    undetected_damages,
)
from simulations.benchmarks.parts.check import Check, Size
from simulations.benchmarks.parts.command import main

DURATION = "about 4 minutes"


@dataclass(frozen=True)
class CrashSize(Size):
    """So many power cuts a seed, damages, and rounds in the ledger whose speed is measured."""

    cuts: int = 500
    damages: int = 10_000
    rounds: int = 1000


FULL = CrashSize(seeds=(101, 102, 103))
MINIATURE = CrashSize(seeds=(101,), cuts=20, damages=120, rounds=40)


def checks(data: Path, size: CrashSize) -> Iterator[Check]:
    """Yield the checks; real data is not needed."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _cuts(Path(folder), size)
        yield from _damages(Path(folder), size)
        yield from _speed(Path(folder), size)


def _cuts(folder: Path, size: CrashSize) -> Iterator[Check]:
    names = ("cuts", "overspends", "lost_commits", "refusals")
    total = dict.fromkeys(names, 0)
    for seed in size.seeds:
        home = folder / f"cuts-{seed}"
        home.mkdir()
        seen = crash_trials(home, size.cuts, seed=seed)
        for name in names:
            total[name] += getattr(seen, name)
    yield Check("power cuts at random calls", total["cuts"], 1000, ">=", full_size=True)
    yield Check("overspends and second answers after them", total["overspends"], 0, "==")
    what = "answers that had left and were not found committed"
    yield Check(what, total["lost_commits"], 0, "==")
    yield Check("ledgers that a mere power cut made unusable", total["refusals"], 0, "==")


def _damages(folder: Path, size: CrashSize) -> Iterator[Check]:
    home = folder / "damages"
    home.mkdir()
    unnoticed = undetected_damages(home, size.damages, seed=size.seeds[0])
    what = "changed bytes, truncations, swaps, removals, repetitions and rollbacks, unnoticed"
    note = f"of {size.damages}. {'; '.join(unnoticed[:3])}"
    yield Check(what, len(unnoticed), 0, "==", note)


def _speed(folder: Path, size: CrashSize) -> Iterator[Check]:
    home = folder / "speed"
    home.mkdir()
    ledger = Ledger(home / "ledger.jsonl", "trial-site", budget_for(2 * size.rounds))
    costs = []
    for number in range(1, size.rounds + 1):
        started = time.perf_counter()
        ledger.commit(ledger.reserve(round_entry(number)), "ef" * 32)
        costs.append(time.perf_counter() - started)
    tenth = size.rounds // 10
    first, last = median(costs[:tenth]), median(costs[-tenth:])
    yield Check("median seconds to reserve and commit, first tenth of rounds", first, 0.25, "<")
    yield Check("growth of that by the last tenth", last / first, 3.0, "<", full_size=True)
    started = time.perf_counter()
    lines = ledger.verify()
    took = time.perf_counter() - started
    yield Check("seconds to verify all lines", took, 5.0, "<", f"{lines} lines")
    error = abs(ledger.spent(STUDY, "train") - size.rounds / 100)
    yield Check("error of the sum of all spends", error, 1e-12, "<")


if __name__ == "__main__":
    main(__file__)
