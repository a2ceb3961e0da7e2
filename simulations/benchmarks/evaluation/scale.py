"""Measure cost at scale: a million patients evaluated, two hundred sites trained in one process.

First the server's time for the tables of a million patients against lifelines' for the rows.
Then gradient sums of a linear head over up to 200 sites of 64 patients: the whole in-process path
(messages, checks, ledger, checkpoint) against a plain loop that calls the same local training,
and against Flower's Ray engine with the same agents; rounds after the first few, median. Every
size runs in its own process, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from client.training.private_gradient import clipped_gradient_sum
from common.commands.cli_output import Output, Progress
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays, to_arrays
from common.study.study import Study
from server.aggregate.contribution import Contribution
from server.aggregate.gradient_mean import descent, gradient_sum
from server.aggregate.optimizers import OptimizerState, apply_direction
from simulations.benchmarks.evaluation.evaluation_error import speed_checks
from simulations.benchmarks.parts.check import Check, progress, run
from simulations.engines.consortium_run import Engine, run_in_process
from simulations.engines.many_sites import many_agents, many_cohorts, many_sites_study

NAME = "scale"
DURATION = "about 5 minutes on two idle cores"
SITES = (10, 50, 100, 200)
ROUNDS = {"local": 9, "ray": 6}
WARM_UP = 3
MEGABYTE = 1024.0**2


@dataclass(frozen=True)
class Cost:
    """What a run over some sites took.

    Attributes:
        seconds: Median time of a round after the first few.
        cpu_s: The same in processor time of this process, which other programs do not disturb.
        peak_mb: Peak resident memory of the process and, for Ray, not of its workers.
        added_mb: Peak minus what was resident before the agents were made.
    """

    seconds: float
    cpu_s: float
    peak_mb: float
    added_mb: float


class RoundClock(Output):
    """Progress that shows nothing and notes when each round was committed."""

    def __init__(self) -> None:
        super().__init__(json_mode=True)
        self.times: list[tuple[float, float]] = []

    @contextmanager
    def progress(self, total: int, label: str) -> Iterator[Progress]:
        """Yield a counter that notes the time of every step of the round loop."""
        yield _Clocked(total, label, self.times)

    @property
    def medians(self) -> tuple[float, float]:
        """Median (seconds, processor seconds) between two committed rounds after the first few."""
        wall, cpu = np.median(np.diff(self.times, axis=0)[WARM_UP - 1 :], axis=0)
        return float(wall), float(cpu)


class _Clocked(Progress):
    def __init__(self, total: int, label: str, times: list[tuple[float, float]]) -> None:
        super().__init__(total, label, None)
        self._times = times

    def advance(self, n: int = 1, note: str = "") -> None:
        self._times.append((time.perf_counter(), time.process_time()))
        super().advance(n, note)


def checks(data: Path) -> Iterator[Check]:
    """Yield the checks; `data` is not read."""
    for check in speed_checks():
        yield replace(check, value=None if check.value is None else float(check.value))
    costs = {n: _in_own_process(federated_cost, n, "local") for n in SITES}
    for n, cost in costs.items():
        progress(f"{n} sites: {cost.seconds:.3f} s per round, peak memory {cost.peak_mb:.0f} MB")
    most = SITES[-1]
    plain = _in_own_process(plain_cost, most)
    ray = _in_own_process(federated_cost, most, "ray")
    ours = costs[most]
    note = (
        f"{ours.seconds:.3f} s per round, plain loop {plain.seconds:.3f} s, Ray {ray.seconds:.3f} s"
    )
    what = f"{most} sites in one process: processor seconds per round / those of a plain loop"
    worked = f"{ours.cpu_s:.3f} s and {plain.cpu_s:.3f} s of one processor; {note}"
    yield Check(what, ours.cpu_s / plain.cpu_s, 1.5, "<=", worked)
    what = f"{most} sites: seconds per round of Flower's Ray engine / ours"
    yield Check(what, ray.seconds / ours.seconds, 2.0, ">=", note)
    yield from growth_checks(costs)


def growth_checks(costs: dict[int, Cost]) -> Iterator[Check]:
    """Yield that time and memory grow no faster than the number of sites."""
    few, most = SITES[0], SITES[-1]
    shown = ", ".join(f"{n}: {cost.seconds:.3f} s" for n, cost in costs.items())
    ratio = (costs[most].cpu_s / most) / (costs[few].cpu_s / few)
    yield Check(
        f"processor time per round and site, {most} sites / {few} sites", ratio, 1.3, "<=", shown
    )
    shown = ", ".join(f"{n}: {cost.peak_mb:.0f} MB" for n, cost in costs.items())
    yield Check(f"peak memory at {most} sites, MB", costs[most].peak_mb, 2048, "<=", shown)
    early = (costs[SITES[2]].peak_mb - costs[few].peak_mb) / (SITES[2] - few)
    late = (costs[most].peak_mb - costs[SITES[2]].peak_mb) / (most - SITES[2])
    what = f"memory a further site, {SITES[2]} to {most} minus {few} to {SITES[2]} sites, MB"
    yield Check(what, late - early, 0.3, "<=", f"{early:.2f} and {late:.2f} MB per site")


def federated_cost(n_sites: int, engine: Engine) -> Cost:
    """Return what a round of the whole federation takes over `n_sites`."""
    _one_thread()
    study = many_sites_study(n_sites, rounds=ROUNDS[engine])
    before = _peak_mb()
    clock = RoundClock()
    with TemporaryDirectory(prefix="tumorboard-", dir=memory_folder()) as name:
        agents = many_agents(study, Path(name) / "sites")
        run_in_process(study, agents, Path(name) / "run", output=clock, engine=engine)
    peak = _peak_mb()
    return Cost(*clock.medians, peak, peak - before)


def plain_cost(n_sites: int) -> Cost:
    """Return what a plain loop over the clients takes: same training, same mean, nothing else."""
    _one_thread()
    study = many_sites_study(n_sites, rounds=ROUNDS["local"])
    before = _peak_mb()
    times = _plain_loop(study)
    peak = _peak_mb()
    wall, cpu = np.median(times[WARM_UP:], axis=0)
    return Cost(float(wall), float(cpu), peak, peak - before)


def _plain_loop(study: Study) -> list[tuple[float, float]]:
    datasets = {site: cohort.dataset(study) for site, cohort in many_cohorts(study).items()}
    model = build_model(study)
    device = next(model.parameters()).device
    parameters, state = to_arrays(model), OptimizerState()
    times: list[tuple[float, float]] = []
    for _ in range(study.training.rounds):
        started, worked = time.perf_counter(), time.process_time()
        contributions: list[Contribution] = []
        for site, patients in datasets.items():
            load_arrays(model, parameters)
            found = clipped_gradient_sum(model, patients, study, device=device, clip=None)
            contributions.append(Contribution(site, dict(found.arrays)))
        direction = descent(study, parameters, gradient_sum(contributions))
        parameters = apply_direction(parameters, direction, study.training.server, state)
        times.append((time.perf_counter() - started, time.process_time() - worked))
    return times


def memory_folder() -> Path | None:
    """Return a folder in memory if there is one: forced writes to a disk would drown the rest."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None


def _in_own_process(measure: Callable[..., Cost], *arguments: object) -> Cost:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *arguments).result()


def _one_thread() -> None:
    torch.set_num_threads(1)


def _peak_mb() -> float:
    """Return the peak resident memory of this process, MB.

    Linux' own figure starts anew with each program; that of `getrusage` would begin with the
    peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(t for t in status.read_text().splitlines() if t.startswith("VmHWM"))
        return float(line.split()[1]) * 1024 / MEGABYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


if __name__ == "__main__":
    run(NAME, checks, seeds=[5, 11])
