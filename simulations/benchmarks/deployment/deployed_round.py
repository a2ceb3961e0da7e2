"""Measure what a deployed round costs in seconds, bytes per site and memory, beside stock FedAvg.

Stock is measured twice: as it comes, without TLS, keys or disk, and as a consortium would have to
run it, with Flower's TLS, node keys and database on disk, which is what ours has too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from simulations.benchmarks.parts.check import Check, progress, run
from simulations.deployed.bench_run import Measured
from simulations.deployed.our_round import measure_ours
from simulations.deployed.stock_round import measure_secured_stock, measure_stock

DURATION = "about 25 minutes on 2 idle cores"
SMALL, LARGE = 500, 25_000_000
MIB_PER_SITE = {SMALL: 450, LARGE: 1900}
"""Memory that a site of either side needs; a configuration that does not fit is left out."""

TIMES_STOCK = {SMALL: 0.8, LARGE: 1.6}
"""Most seconds of a round as a multiple of stock's as it comes. A large model passes TLS, a
database on disk and a second process at the hospital, which stock does without."""

TIMES_SECURED = 1.0
"""Most seconds of a round as a multiple of stock's with TLS, node keys and database."""

OVERHEAD = 1.35
"""Most bytes on the line of a large model, as a multiple of the model sent and sent back."""

SIDES = {
    "ours": measure_ours,
    "stock, secured": measure_secured_stock,
    "stock, as it comes": measure_stock,
}


@dataclass(frozen=True)
class RoundSize:
    """What is measured.

    Attributes:
        sites: Numbers of SuperNodes.
        rounds: Parameters of a model -> rounds it is measured for; the first warms up.
    """

    sites: tuple[int, ...]
    rounds: Mapping[int, int]


FULL = RoundSize(sites=(3, 6, 10), rounds={SMALL: 4, LARGE: 3})
MINIATURE = RoundSize(sites=(3,), rounds={SMALL: 2})


def checks(data: Path, size: RoundSize = FULL) -> Iterator[Check]:
    """Yield the checks; no real data is used."""
    for parameters, rounds in size.rounds.items():
        for sites in size.sites:
            if not _fits(sites, parameters):
                progress(f"left out for want of memory: {sites} sites, {parameters} parameters")
                continue
            ours, secured, stock = (_measure(name, sites, parameters, rounds) for name in SIDES)
            what = f"{sites} SuperNodes, {parameters:,} parameters"
            yield from _seconds(what, parameters, ours, secured, stock)
            yield _bytes(what, parameters, ours, stock)


def _seconds(
    what: str, parameters: int, ours: Measured, secured: Measured, stock: Measured
) -> Iterator[Check]:
    took = median(ours.seconds[1:])
    yield Check(
        f"median s per round of two exchanges, {what}; bound: {TIMES_SECURED:g} x stock FedAvg "
        "with TLS, node keys and database in the same run",
        took,
        TIMES_SECURED * median(secured.seconds[1:]),
        "<=",
        note=f"memory of one, MiB: {_memory(ours)}; stock: {_memory(secured)}",
    )
    yield Check(
        f"the same; bound: {TIMES_STOCK[parameters]:g} x stock FedAvg as it comes",
        took,
        TIMES_STOCK[parameters] * median(stock.seconds[1:]),
        "<=",
        note=f"memory of one, MiB, stock: {_memory(stock)}",
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
    return Check(
        f"KiB on the line of a site in a round, {what}",
        ours.site_bytes / 2**10,
        512,
        "<=",
        note=f"start of the node and idle looks included; stock: "
        f"{stock.site_bytes / 2**10:.1f} KiB",
    )


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
    run("deployed_round", checks, seeds=[])
