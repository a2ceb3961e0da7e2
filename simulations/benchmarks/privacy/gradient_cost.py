"""Check that per-patient clipped gradients cost at most 1.2 times plain training.

Bags of 500 to 1,000 tiles (384 wide), MoEMIL of about 1 M parameters, one CPU thread. Plain
training: for every patient forward and backward on their own unpadded bag, gradients adding up,
then one step of SGD. Private: the same patients through `clipped_gradient_sum`. Both are timed
in turns, in seconds of processor time; the ratio is that of the medians. The padded ways (vmap
in chunks) are timed too, to show why the loop is chosen on a CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
from simulations.benchmarks.parts.check import Check, progress, run

NAME = "gradient_cost"
DURATION = "about 1 minute on one core"
SEED = 7
N_PATIENTS = 40
REPEATS = 5
CLIP = 0.3
CPU = torch.device("cpu")


def checks(_data: Path) -> Iterator[Check]:
    """Yield the checks; the patients are synthetic."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _bags()
        yield from _pooled()
    finally:
        torch.set_num_threads(threads)


def _bags() -> Iterator[Check]:
    study = _study("moemil", {"bag_hidden": 256, "experts": 4, "expert_hidden": 128})
    model, dataset = build_model(study), _patients(study)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: _train_plainly(model, dataset, study),
        "private": lambda: clipped_gradient_sum(model, dataset, study, device=CPU, clip=CLIP),
        "vmap in padded chunks of 4": lambda: _padded(model, dataset, study, 4),
    }
    seconds = _time_in_turns(ways)
    for way, values in seconds.items():
        each = 1000 * statistics.median(values) / N_PATIENTS
        progress(f"{way}: {each:.1f} ms per patient ({n_parameters} parameters)")
    ratios = [p / q for p, q in zip(seconds["private"], seconds["plain"], strict=True)]
    spread = f"turns from {min(ratios):.3f} to {max(ratios):.3f}"
    yield Check(
        f"private over plain training, processor time, {N_PATIENTS} unpadded bags, "
        f"{n_parameters} parameters",
        statistics.median(seconds["private"]) / statistics.median(seconds["plain"]),
        1.2,
        "<=",
        spread,
    )
    ratio = statistics.median(seconds["private"]) / statistics.median(
        seconds["vmap in padded chunks of 4"]
    )
    yield Check("the loop over the padded vmap on the same patients", ratio, 1.0, "<=")


def _pooled() -> Iterator[Check]:
    study = _study("linear", {})
    model, dataset = build_model(study), _patients(study)
    seconds = _time_in_turns(
        {
            "first": lambda: clipped_gradient_sum(
                model, dataset.select(range(N_PATIENTS)), study, device=CPU, clip=CLIP
            ),
            "kept": lambda: clipped_gradient_sum(model, dataset, study, device=CPU, clip=CLIP),
        }
    )
    kept = 1000 * statistics.median(seconds["kept"])
    progress(f"linear heads: {kept:.1f} ms per round of {N_PATIENTS} patients")
    ratio = statistics.median(seconds["kept"]) / statistics.median(seconds["first"])
    yield Check("linear heads: a round on kept pooled features over one that pools", ratio, 1, "<=")


def _study(model: str, options: dict[str, object]) -> Study:
    return Study.model_validate(
        {
            "study_id": NAME,
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


def _patients(study: Study) -> PatientDataset:
    rng = np.random.default_rng(SEED)
    features = {
        name: [_bag(rng, spec.max_tokens, spec.dim) for _ in range(N_PATIENTS)]
        for name, spec in study.features.items()
    }
    return PatientDataset.from_arrays(
        study,
        [f"patient-{index:03d}" for index in range(N_PATIENTS)],
        features,
        rng.integers(0, 2, N_PATIENTS),
        rng.uniform(1, 80, N_PATIENTS),
        rng.integers(0, 2, N_PATIENTS),
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


def _padded(model: FusedModel, dataset: PatientDataset, study: Study, chunk: int) -> None:
    total = ClippedSum(expected_shapes(model), CLIP)
    for gradients, losses in in_padded_chunks(model, dataset, study, CPU, chunk):
        total.add(gradients, losses)
    total.result()


def _time_in_turns(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    return seconds


if __name__ == "__main__":
    run(NAME, checks, seeds=[SEED])
