"""What a deployed round costs: seconds, bytes a site and memory, beside stock Flower FedAvg."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import psutil

from simulations.benchmarks.check import Check, progress, run
from simulations.deployed.transport_bench import Measured, measure_ours, measure_stock

DURATION = "about 25 minutes on 2 idle cores"
SITES = (3, 6, 10)
SMALL, LARGE = 500, 25_000_000
ROUNDS = {SMALL: 4, LARGE: 2}
MIB_A_SITE = {SMALL: 450, LARGE: 1600}
"""Memory a site of either side needs; a configuration that does not fit is left out."""

TIMES_STOCK = {SMALL: 1.0, LARGE: 3.0}
"""Most seconds of a round as a multiple of stock's. A large model passes TLS, a database on disk
and a second process at the hospital, which stock Flower as started here does without."""

OVERHEAD = 1.35
"""Most bytes on the line of a large model, as a multiple of the model sent and sent back."""


def checks(data: Path) -> Iterator[Check]:
    """Yield the checks; no real data is used."""
    for parameters in (SMALL, LARGE):
        for sites in SITES:
            if not _fits(sites, parameters):
                progress(f"left out for want of memory: {sites} sites, {parameters} parameters")
                continue
            ours = _measure("ours", measure_ours, sites, parameters)
            stock = _measure("stock", measure_stock, sites, parameters)
            yield from _compare(sites, parameters, ours, stock)


def _compare(sites: int, parameters: int, ours: Measured, stock: Measured) -> Iterator[Check]:
    what = f"{sites} SuperNodes, {parameters:,} parameters"
    yield Check(
        f"median s a round of two exchanges, {what}; bound: {TIMES_STOCK[parameters]:g} x stock "
        "FedAvg in the same run",
        median(ours.seconds[1:]),
        TIMES_STOCK[parameters] * median(stock.seconds[1:]),
        "<=",
        note=f"memory of one, MiB: {_memory(ours)}; stock: {_memory(stock)}",
    )
    if parameters == LARGE:
        yield Check(
            f"MiB on a site's line in a round, {what}; bound: {OVERHEAD} x the model both ways",
            ours.site_bytes / 2**20,
            OVERHEAD * 2 * 4 * parameters / 2**20,
            "<=",
            note=f"stock: {stock.site_bytes / 2**20:.1f} MiB",
        )
    else:
        yield Check(
            f"KiB on the line of a site in a round, {what}",
            ours.site_bytes / 2**10,
            512,
            "<=",
            note=f"start of the node and idle looks included; stock: "
            f"{stock.site_bytes / 2**10:.1f} KiB",
        )


def _measure(
    name: str, measure: Callable[[Path, int, int, int], Measured], sites: int, parameters: int
) -> Measured:
    with tempfile.TemporaryDirectory(prefix="tb") as folder:
        measured = measure(Path(folder) / "x", sites, parameters, ROUNDS[parameters])
    shown = " ".join(f"{seconds:.2f}" for seconds in measured.seconds)
    progress(f"{name}, {sites} SuperNodes, {parameters:,} parameters: {shown} s")
    return measured


def _memory(measured: Measured) -> str:
    return ", ".join(f"{kind} {mib:.0f}" for kind, mib in sorted(measured.peak_mib.items()))


def _fits(sites: int, parameters: int) -> bool:
    available = float(psutil.virtual_memory().available) / 2**20
    return available > MIB_A_SITE[parameters] * sites + 2000


if __name__ == "__main__":
    run("deployed_round", checks, seeds=[])
