"""Check that one patient more or less changes no byte of what else leaves a hospital.

Every registered model, every path of a private mode (`simulations.attackers.neighbours`) and every
device: cohorts of random patients who come one by one, some with many times the tokens of the
others, under random weights, with score cuts on the patients' own scores. What the cohort says
after a newcomer must be what it said before plus what the newcomer says alone. As a control the
same is asked of padded chunks, which were in use on GPUs.

The second half is what it costs to compute every patient alone, beside chunks: vmap over all for
models of uniform shape, padded chunks of 16 for the others and for predictions. Processor time
on a CPU, elapsed time on a GPU; medians of paired ratios.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from client.data.dataset import PatientDataset
from client.training.device import choose_device
from client.training.evaluate import predict_all
from client.training.private_gradient import (
    PADDED_CHUNK,
    Gradients,
    in_padded_chunks,
    one_by_one,
    together,
)
from common.metrics.tables.predictions import Predictions
from common.models.base.parameters import expected_shapes
from common.privacy.clipping import ClippedSum, GradientSum
from common.study.catalogue import MODELS
from simulations.attackers.neighbours import (
    PATHS,
    Case,
    Said,
    differing_bytes,
    grid_steps,
    random_case,
)
from simulations.benchmarks.parts.check import Check, Size
from simulations.benchmarks.parts.command import main
from simulations.benchmarks.parts.draws import median_of

DURATION = "about 20 minutes on one core"


@dataclass(frozen=True)
class NeighbourSize(Size):
    """So many cohorts a model, patients who come to each, and patients and turns that are timed."""

    cohorts: int = 250
    patients: int = 4
    timed: int = 128
    turns: int = 5


FULL = NeighbourSize(seeds=(1,))
MINIATURE = NeighbourSize(seeds=(1,), cohorts=1, patients=2, timed=3, turns=2)


def checks(data: Path, size: NeighbourSize) -> Iterator[Check]:
    """Yield the checks; real data is not needed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for device in sorted({choose_device("cpu"), choose_device("auto")}, key=str):
            yield from _bytes(device, size)
            for name in MODELS.names():
                yield from _costs(name, device, size)
    finally:
        torch.set_num_threads(threads)


def _bytes(device: torch.device, size: NeighbourSize) -> Iterator[Check]:
    moved = 0
    for name in MODELS.names():
        bytes_of = dict.fromkeys(PATHS, 0)
        first = size.seeds[0] * 1_000_000
        for seed in range(first, first + size.cohorts):
            case = random_case(name, size.patients, seed, device)
            for path, say in PATHS.items():
                bytes_of[path] += sum(differing_bytes(case, say))
            if seed < first + max(size.cohorts // 25, 1):
                moved += sum(n > 0 for n in differing_bytes(case, _padded))
        note = f"{size.cohorts * size.patients} neighbouring pairs"
        for path, n in bytes_of.items():
            yield Check(f"differing bytes, {name}, {path}, {device}", n, 0, "==", note)
    what = f"control: pairs in which padded chunks move another patient, {device}"
    yield Check(what, moved, 0, ">", "of a twenty-fifth of the pairs")


def _padded(case: Case, patients: PatientDataset) -> Said:
    chunks = in_padded_chunks(case.model, patients, case.study, case.device, PADDED_CHUNK)
    clip = case.study.privacy.clip
    total = _add_up(case, chunks, clip)
    return {name: grid_steps(array, clip) for name, array in total.arrays.items()}


def _add_up(case: Case, chunks: Iterator[Gradients], clip: float) -> GradientSum:
    total = ClippedSum(expected_shapes(case.model.eval()), clip, case.device)
    for gradients, losses in chunks:
        total.add(gradients, losses)
    return total.result()


def _costs(name: str, device: torch.device, size: NeighbourSize) -> Iterator[Check]:
    case = random_case(name, size.timed, size.seeds[0], device)
    where = (case.model, case.patients, case.study, case.device)

    def chunks() -> Iterator[Gradients]:
        if case.model.uniform_shape:
            return together(*where)
        return in_padded_chunks(*where, PADDED_CHUNK)

    clip = case.study.privacy.clip
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "training": (
            lambda: _add_up(case, one_by_one(*where), clip),
            lambda: _add_up(case, chunks(), clip),
        ),
        "evaluation": (
            lambda: predict_all(case.model, case.patients, case.grid, device),
            lambda: _predict_in_chunks(case),
        ),
    }
    for work, ways in pairs.items():
        alone, chunked = _paired(ways, device, size.turns)
        ratio = median_of([a / b for a, b in zip(alone, chunked, strict=True)])
        per = [1000 * median(seconds) / size.timed for seconds in (alone, chunked)]
        note = f"{per[0]:.3g} and {per[1]:.3g} ms per patient; {ratio}"
        what = f"{work}, one patient a call over chunks, {name}, {device}"
        yield Check(what, ratio.value, 1, "finite", note)


def _paired(
    ways: tuple[Callable[[], object], Callable[[], object]], device: torch.device, turns: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of both ways, in turns, after one turn that warms up."""
    times = [tuple(_seconds(way, device) for way in ways) for _ in range(turns + 1)][1:]
    first, second = zip(*times, strict=True)
    return list(first), list(second)


def _seconds(way: Callable[[], object], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    started = clock()
    way()
    return clock() - started


def _predict_in_chunks(case: Case) -> Predictions:
    n = len(case.patients)
    with torch.inference_mode():
        parts = []
        for start in range(0, n, PADDED_CHUNK):
            batch = case.patients.batch(range(start, min(start + PADDED_CHUNK, n))).to(case.device)
            parts.append(Predictions.from_outputs(case.model(batch), batch, case.grid))
    return Predictions.concatenate(parts)


if __name__ == "__main__":
    main(__file__)
