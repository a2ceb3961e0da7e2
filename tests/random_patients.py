"""Small random studies and cohorts in memory, for tests of models and training."""

from collections.abc import Sequence

import numpy as np
import torch

from common.cohort.batch import PatientBatch
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.study.catalogue import MODELS
from common.study.modalities import MODALITIES
from common.study.study import Study
from simulations.attackers.neighbours import SMALL

FEATURES = {
    "tiles": {"modality": "pathology", "dim": 6, "max_tokens": 12},
    "slices": {"modality": "radiology", "dim": 5, "max_tokens": 4},
    "radiomics": {"modality": "radiology", "dim": 7},
    "pathways": {"modality": "genomics", "dim": 4, "max_tokens": 5, "pool": "row_mean"},
    "table": {"modality": "clinical", "dim": 3},
    "prompts": {"modality": "clinical", "dim": 4, "max_tokens": 3, "pool": "flatten"},
}
FEATURES |= {
    modality: {"modality": modality, "dim": 4, "max_tokens": 3}
    for modality in MODALITIES
    if all(spec["modality"] != modality for spec in FEATURES.values())
}
"""Feature sets of every shape, and of every modality."""


def make_study(model: str = "linear", *, features=None, training=None, **options) -> Study:
    """A mode-none study over all modalities and both tasks."""
    return Study.model_validate(
        {
            "study_id": "test",
            "endpoints": {
                "response": {"positive": "responder", "prevalence": 0.3},
                "survival": {"hazards": [0.1, 0.2, 0.2, 0.2, 0.3]},
            },
            "features": features or FEATURES,
            "model": {"name": model, "options": options},
            "training": training or {},
            "privacy": {"mode": "none"},
            "sites": [{"site_id": "a"}, {"site_id": "b"}],
        }
    )


SMALL_MODELS = {name: SMALL.get(name, {}) for name in MODELS.names()}


def random_model(study: Study, seed: int = 0, scale: float = 0.3) -> FusedModel:
    """The study's model with random weights, so that heads are not zero."""
    model = build_model(study)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


class Cohort:
    """Random patients with missing modalities and labels; batches like the real dataset."""

    def __init__(self, study: Study, n: int, seed: int = 0, missing: float = 0.3, signal=None):
        rng = np.random.default_rng(seed)
        self.patient_ids = [f"p{rng.integers(1e9):09d}" for _ in range(n)]
        self.study = study
        self.tokens: list[dict[str, np.ndarray | None]] = []
        for _ in range(n):
            one = {}
            for name, spec in study.features.items():
                fixed = spec.pool != "mean"
                length = spec.max_tokens if fixed else int(rng.integers(1, spec.max_tokens + 1))
                tokens = rng.normal(size=(length, spec.dim)).astype(np.float32)
                one[name] = None if rng.random() < missing else tokens
            self.tokens.append(one)
        self.response = rng.integers(0, 2, n).astype(np.float32)
        self.time = rng.uniform(0, 90, n).astype(np.float32)
        self.event = rng.integers(0, 2, n).astype(np.float32)
        self.seen = {task: rng.random(n) >= missing for task in ("response", "survival")}
        if signal is not None:
            signal(self, rng)

    def __len__(self) -> int:
        return len(self.patient_ids)

    def present(self, feature: str) -> np.ndarray:
        return np.array([one[feature] is not None for one in self.tokens])

    def batch(self, indices: Sequence[int], *, extra: int = 0) -> PatientBatch:
        tokens, mask, present = {}, {}, {}
        for name, spec in self.study.features.items():
            bags = [self.tokens[i][name] for i in indices]
            length = max([1, *(len(b) for b in bags if b is not None)]) + extra
            filled = np.zeros((len(bags), length, spec.dim), dtype=np.float32)
            real = np.zeros((len(bags), length), dtype=bool)
            for row, bag in enumerate(bags):
                if bag is not None:
                    filled[row, : len(bag)], real[row, : len(bag)] = bag, True
            tokens[name], mask[name] = torch.from_numpy(filled), torch.from_numpy(real)
            present[name] = torch.tensor([b is not None for b in bags])
        rows = list(indices)
        return PatientBatch(
            tokens=tokens,
            mask=mask,
            present=present,
            response=torch.from_numpy(self.response[rows]),
            time_months=torch.from_numpy(self.time[rows]),
            event=torch.from_numpy(self.event[rows]),
            observed={t: torch.from_numpy(s[rows]) for t, s in self.seen.items()},
        )

    def select(self, indices: Sequence[int]) -> "Cohort":
        part = object.__new__(Cohort)
        part.study = self.study
        part.patient_ids = [self.patient_ids[i] for i in indices]
        part.tokens = [self.tokens[i] for i in indices]
        rows = list(indices)
        part.response, part.time, part.event = (
            self.response[rows],
            self.time[rows],
            self.event[rows],
        )
        part.seen = {task: seen[rows] for task, seen in self.seen.items()}
        return part
