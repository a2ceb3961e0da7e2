"""Measure cost at scale: two hundred sites trained in one process.

Gradient sums of a linear head over up to 200 sites of 64 patients: the whole in-process path
(messages, checks, ledger, checkpoint) against a plain loop that calls the same local training,
and against Flower's Ray engine with the same agents; rounds after the first few, median. Every
size runs in its own process, so that its peak memory is its own.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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
from simulations.benchmarks.parts.check import Check, Size, at_full_size, progress
from simulations.benchmarks.parts.command import main
from simulations.engines.consortium_run import Engine, run_in_process
from simulations.engines.many_sites import many_agents, many_cohorts, many_sites_study

DURATION = "about 5 minutes on two idle cores"
WARM_UP = 3
MEGABYTE = 1024.0**2


@dataclass(frozen=True)
class ScaleSize(Size):
    """How large a consortium.

    Attributes:
        sites: Four numbers of sites, ascending.
        rounds: Rounds of our engine and the plain loop, and of the other engine.
        rival: The other engine. The miniature takes ours: Ray needs ten seconds to start.
        apart: Every size in its own process, so that its peak memory is its own.
    """

    sites: tuple[int, int, int, int] = (10, 50, 100, 200)
    rounds: tuple[int, int] = (9, 6)
    rival: Engine = "ray"
    apart: bool = True


FULL = ScaleSize(seeds=(11,))
MINIATURE = ScaleSize(seeds=(11,), sites=(2, 3, 4, 5), rounds=(5, 5), rival="local", apart=False)


@dataclass(frozen=True)
class Cost:
    """What a run over some sites took.

    Attributes:
        seconds: Median time of a round after the first few.
        cpu_s: The same in processor time of this process, which other programs do not disturb.
        peak_mb: Peak resident memory of the process and, for Ray, not of its workers.
    """

    seconds: float
    cpu_s: float
    peak_mb: float


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


def checks(data: Path, size: ScaleSize) -> Iterator[Check]:
    """Yield the checks; `data` is not read."""
    measure = _in_own_process if size.apart else _here
    rounds, rival_rounds = size.rounds
    costs = {n: measure(federated_cost, n, "local", rounds) for n in size.sites}
    for n, cost in costs.items():
        progress(f"{n} sites: {cost.seconds:.3f} s per round, peak memory {cost.peak_mb:.0f} MB")
    most = size.sites[-1]
    plain = measure(plain_cost, most, rounds)
    rival = measure(federated_cost, most, size.rival, rival_rounds)
    yield from at_full_size(engine_checks(costs[most], plain, rival))
    yield from at_full_size(growth_checks(costs))


def engine_checks(ours: Cost, plain: Cost, ray: Cost) -> Iterator[Check]:
    """Yield our cost of the most sites against a plain loop and against Flower's Ray engine."""
    note = f"{ours.seconds:.3f} s per round, plain loop {plain.seconds:.3f} s, "
    note += f"Ray {ray.seconds:.3f} s"
    what = "most sites in one process: processor seconds per round / those of a plain loop"
    worked = f"{ours.cpu_s:.3f} s and {plain.cpu_s:.3f} s of one processor; {note}"
    yield Check(what, ours.cpu_s / plain.cpu_s, 1.5, "<=", worked)
    what = "most sites: seconds per round of Flower's Ray engine / ours"
    yield Check(what, ray.seconds / ours.seconds, 2.0, ">=", note)


def growth_checks(costs: dict[int, Cost]) -> Iterator[Check]:
    """Yield that time and memory grow no faster than the number of sites.

    Args:
        costs: By number of sites, four of them, ascending.
    """
    few, _, more, most = costs
    shown = ", ".join(f"{n}: {cost.seconds:.3f} s" for n, cost in costs.items())
    ratio = (costs[most].cpu_s / most) / (costs[few].cpu_s / few)
    yield Check("processor time per round and site, most sites / fewest", ratio, 1.3, "<=", shown)
    shown = ", ".join(f"{n}: {cost.peak_mb:.0f} MB" for n, cost in costs.items())
    yield Check("peak memory at most sites, MB", costs[most].peak_mb, 2048, "<=", shown)
    early = (costs[more].peak_mb - costs[few].peak_mb) / (more - few)
    late = (costs[most].peak_mb - costs[more].peak_mb) / (most - more)
    what = "memory a further site, second half of sites minus first half, MB"
    yield Check(what, late - early, 0.3, "<=", f"{early:.2f} and {late:.2f} MB per site")


def federated_cost(n_sites: int, engine: Engine, rounds: int) -> Cost:
    """Return what a round of the whole federation takes over `n_sites`."""
    torch.set_num_threads(1)
    study = many_sites_study(n_sites, rounds=rounds)
    clock = RoundClock()
    with TemporaryDirectory(prefix="tumorboard-", dir=memory_folder()) as name:
        agents = many_agents(study, Path(name) / "sites")
        run_in_process(study, agents, Path(name) / "run", output=clock, engine=engine)
    return Cost(*clock.medians, _peak_mb())


def plain_cost(n_sites: int, rounds: int) -> Cost:
    """Return what a plain loop over the clients takes: same training, same mean, nothing else."""
    torch.set_num_threads(1)
    study = many_sites_study(n_sites, rounds=rounds)
    times = _plain_loop(study)
    wall, cpu = np.median(times[WARM_UP:], axis=0)
    return Cost(float(wall), float(cpu), _peak_mb())


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


def _here(measure: Callable[..., Cost], *arguments: object) -> Cost:
    return measure(*arguments)


def _in_own_process(measure: Callable[..., Cost], *arguments: object) -> Cost:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *arguments).result()


def _peak_mb() -> float:
    """Return the peak resident memory of this process, MB.

    Linux' own figure starts again with each program; that of `getrusage` would begin with the
    peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(t for t in status.read_text().splitlines() if t.startswith("VmHWM"))
        return float(line.split()[1]) * 1024 / MEGABYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


if __name__ == "__main__":
    main(__file__)
