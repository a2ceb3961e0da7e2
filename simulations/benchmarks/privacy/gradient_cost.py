"""Check that per-patient clipped gradients cost at most 1.2 times plain training.

Bags of 500 to 1,000 tiles (384 wide), MoEMIL of about 1 M parameters, one CPU thread. Plain
training: for every patient forward and backward on their own unpadded bag, gradients adding up,
then one step of SGD. Private: the same patients through `clipped_gradient_sum`. The padded ways
(vmap in chunks) show why the loop is chosen on a CPU.

Twenty patients at a time go through all ways in turn, in seconds of processor time, so that other
programs on the machine slow all of them alike; the figure is the median of the paired ratios. A
ratio has an SD of .03 on an idle machine and of .1 beside six busy programs a core: the median of
40 is then off by .02.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from client.data.dataset import PatientDataset
from client.data.patient_source import sorted_indices
from client.training.private_gradient import clipped_gradient_sum, in_padded_chunks
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes, trainable
from common.models.losses.multitask import PatientObjective
from common.privacy.clipping import ClippedSum
from common.study.study import Study
from simulations.benchmarks.parts.check import Check, Size, at_full_size, progress
from simulations.benchmarks.parts.command import main
from simulations.benchmarks.parts.draws import Summary, median_of

DURATION = "about 1 minute on one core"
CLIP = 0.3
CPU = torch.device("cpu")
Ways = dict[str, Callable[[PatientDataset], object]]


@dataclass(frozen=True)
class CostSize(Size):
    """So many patients, timed in groups, and how often each group takes its turn."""

    patients: int = 40
    group: int = 20
    turns: int = 20


FULL, MINIATURE = CostSize(seeds=(7,)), CostSize(seeds=(7,), patients=4, group=2, turns=1)


def checks(data: Path, size: CostSize) -> Iterator[Check]:
    """Yield the checks; the patients are synthetic."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from at_full_size(_bags(size))
        yield from at_full_size(_pooled(size))
    finally:
        torch.set_num_threads(threads)


def _bags(size: CostSize) -> Iterator[Check]:
    study = _study("moemil", {"bag_hidden": 256, "experts": 4, "expert_hidden": 128})
    model = build_model(study)
    ratios = _ratios(
        "private",
        {
            "plain": lambda patients: _train_plainly(model, patients, study),
            "private": lambda patients: _private(model, patients, study),
            "padded": lambda patients: _padded(model, patients, study, 4),
        },
        _patients(study, size),
        size,
    )
    plain, padded = ratios["plain"], ratios["padded"]
    what = "private over plain training on unpadded bags, processor time"
    yield Check(what, plain.value, 1.2, "<=", str(plain))
    what = "the loop over the padded vmap in chunks of 4 on the same patients"
    yield Check(what, padded.value, 1.0, "<=", str(padded))


def _pooled(size: CostSize) -> Iterator[Check]:
    study = _study("linear", {})
    model = build_model(study)
    ways: Ways = {
        "first": lambda patients: _private(model, patients.select(range(len(patients))), study),
        "kept": lambda patients: _private(model, patients, study),
    }
    ratio = _ratios("kept", ways, _patients(study, size), size)["first"]
    what = "linear heads: a round on kept pooled features over one that pools"
    yield Check(what, ratio.value, 1, "<=", str(ratio))


def _ratios(
    chosen: str, ways: Ways, patients: PatientDataset, size: CostSize
) -> dict[str, Summary]:
    """Return the processor time of one way over that of each other, paired by group and turn."""
    starts = range(0, len(patients), size.group)
    groups = [patients.select(range(start, start + size.group)) for start in starts]
    for group in groups:
        for way in ways.values():
            way(group)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(size.turns):
        order = list(ways) if turn % 2 == 0 else list(ways)[::-1]
        for group in groups:
            for name in order:
                started = time.process_time()
                ways[name](group)
                seconds[name].append(time.process_time() - started)
    for name, values in seconds.items():
        progress(f"{name}: {1000 * median(values) / size.group:.2f} ms per patient")
    return {
        other: median_of([a / b for a, b in zip(seconds[chosen], values, strict=True)])
        for other, values in seconds.items()
    }


def _study(model: str, options: dict[str, object]) -> Study:
    return Study.model_validate(
        {
            "study_id": "gradient-cost",
            "synthetic": True,
            "endpoints": {"response": {"positive": "responder"}, "survival": {}},
            "features": {
                "tiles": {"modality": "pathology", "dim": 384, "max_tokens": 1000},
                "slices": {"modality": "radiology", "dim": 384, "max_tokens": 15},
                "table": {"modality": "clinical", "dim": 20},
            },
            "model": {"name": model, "options": options},
            "privacy": {"mode": "none"},
            "sites": [{"site_id": "a"}, {"site_id": "b"}],
        }
    )


def _patients(study: Study, size: CostSize) -> PatientDataset:
    rng, n = np.random.default_rng(size.seeds[0]), size.patients
    features = {
        name: [_bag(rng, spec.max_tokens, spec.dim) for _ in range(n)]
        for name, spec in study.features.items()
    }
    return PatientDataset.from_arrays(
        study,
        [f"patient-{index:03d}" for index in range(n)],
        features,
        rng.integers(0, 2, n),
        rng.uniform(1, 80, n),
        rng.integers(0, 2, n),
    )


def _bag(rng: np.random.Generator, longest: int, width: int) -> np.ndarray[tuple[int, int]]:
    length = int(rng.integers((longest + 1) // 2, longest + 1))
    return rng.standard_normal((length, width), dtype=np.float32)


def _train_plainly(model: FusedModel, dataset: PatientDataset, study: Study) -> None:
    objective = PatientObjective(model, study)
    optimizer = torch.optim.SGD(list(trainable(model).values()), lr=0.0)
    optimizer.zero_grad(set_to_none=True)
    for index in sorted_indices(dataset):
        objective(model.prepare(dataset.batch([index]))).sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _private(model: FusedModel, dataset: PatientDataset, study: Study) -> None:
    clipped_gradient_sum(model, dataset, study, device=CPU, clip=CLIP)


def _padded(model: FusedModel, dataset: PatientDataset, study: Study, chunk: int) -> None:
    total = ClippedSum(expected_shapes(model), CLIP)
    for gradients, losses in in_padded_chunks(model, dataset, study, CPU, chunk):
        total.add(gradients, losses)
    total.result()


if __name__ == "__main__":
    main(__file__)
