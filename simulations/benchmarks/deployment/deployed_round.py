"""Measure what a deployed round costs in seconds, bytes per site and memory, beside stock FedAvg.

Stock is measured twice: as it comes, without TLS, keys or disk, and as a consortium would have to
run it, with Flower's TLS, node keys and database on disk, which is what ours has too.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from simulations.benchmarks.parts.check import Check, Size, progress
from simulations.benchmarks.parts.command import main
from simulations.deployed.bench_run import Measured
from simulations.deployed.our_round import measure_ours
from simulations.deployed.stock_round import measure_secured_stock, measure_stock

DURATION = "about 25 minutes on 2 idle cores"
SMALL, LARGE = 500, 25_000_000
MIB_PER_SITE = {SMALL: 450, LARGE: 1900}
"""Memory that a site of either side needs; a configuration that does not fit is left out."""

TIMES = {
    "stock, secured": {SMALL: 1.0, LARGE: 1.0},
    "stock, as it comes": {SMALL: 0.8, LARGE: 1.6},
}
"""Most seconds of a round as a multiple of stock's. Secured stock has TLS, node keys and a
database as ours has; as it comes, a large model does without them and without a second process at
the hospital."""

OVERHEAD = 1.35
"""Most bytes on the line of a large model, as a multiple of the model sent and sent back."""

SIDES = {
    "ours": measure_ours,
    "stock, secured": measure_secured_stock,
    "stock, as it comes": measure_stock,
}


@dataclass(frozen=True)
class RoundSize(Size):
    """What is measured.

    Attributes:
        sites: Numbers of SuperNodes.
        rounds: (parameters of a model, rounds it is measured for); the first warms up.
        rivals: What ours is measured against.
    """

    sites: tuple[int, ...] = (3, 6, 10)
    rounds: tuple[tuple[int, int], ...] = ((SMALL, 4), (LARGE, 3))
    rivals: tuple[str, ...] = tuple(TIMES)


FULL = RoundSize()
MINIATURE = RoundSize(partial=True, sites=(1,), rounds=((SMALL, 2),), rivals=("stock, secured",))


def checks(data: Path, size: RoundSize) -> Iterator[Check]:
    """Yield the checks; no real data is used."""
    for parameters, rounds in size.rounds:
        for sites in size.sites:
            if not _fits(sites, parameters):
                progress(f"left out for want of memory: {sites} sites, {parameters} parameters")
                continue
            names = ("ours", *size.rivals)
            ours, *rivals = (_measure(name, sites, parameters, rounds) for name in names)
            what = f"{sites} SuperNodes, {parameters:,} parameters"
            for name, rival in zip(size.rivals, rivals, strict=True):
                yield _seconds(name, what, TIMES[name][parameters], ours, rival)
            yield _bytes(what, parameters, ours, rivals[-1])


def _seconds(name: str, what: str, times: float, ours: Measured, rival: Measured) -> Check:
    return Check(
        f"median s per round of two exchanges, {what}; bound: {times:g} x {name} FedAvg, same run",
        median(ours.seconds[1:]),
        times * median(rival.seconds[1:]),
        "<=",
        note=f"memory of one, MiB: {_memory(ours)}; stock: {_memory(rival)}",
    )


def _bytes(what: str, parameters: int, ours: Measured, stock: Measured) -> Check:
    if parameters == LARGE:
        return Check(
            f"MiB on a site's line in a round, {what}; bound: {OVERHEAD} x the model both ways",
            ours.site_bytes / 2**20,
            OVERHEAD * 2 * 4 * parameters / 2**20,
            "<=",
            note=f"stock: {stock.site_bytes / 2**20:.1f} MiB",
        )
    note = f"start and idle looks included; stock: {stock.site_bytes / 2**10:.1f} KiB"
    what = f"KiB on the line of a site in a round, {what}"
    return Check(what, ours.site_bytes / 2**10, 512, "<=", note)


def _measure(name: str, sites: int, parameters: int, rounds: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="tb") as folder:
        measured = SIDES[name](Path(folder) / "x", sites, parameters, rounds)
    shown = " ".join(f"{seconds:.2f}" for seconds in measured.seconds)
    progress(f"{name}, {sites} SuperNodes, {parameters:,} parameters: {shown} s")
    return measured


def _memory(measured: Measured) -> str:
    return ", ".join(f"{kind} {mib:.0f}" for kind, mib in sorted(measured.peak_mib.items()))


def _fits(sites: int, parameters: int) -> bool:
    available = float(psutil.virtual_memory().available) / 2**20
    return available > MIB_PER_SITE[parameters] * sites + 2000


if __name__ == "__main__":
    main(__file__)
