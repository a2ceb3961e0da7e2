"""Compare neighbouring cohorts byte by byte: what else moves when one patient comes.

A cohort of random patients grows one by one, in random order, some of them with many times the
tokens of the others, under random weights of many sizes. A releasing path is asked about the
patients before, the newcomer alone, and the patients after: its integers must add up. There is no
tolerance, for whoever chooses weights and cuts can make a last bit large. The score cuts lie on
the patients' own scores and one bit above them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from client.data.dataset import PatientDataset
from client.training.evaluate import predict_all
from client.training.private_gradient import clipped_gradient_sum
from client.training.private_steps import train_private_steps
from common.metrics.summaries.tabulate import scored, tabulate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import COLUMNS, Predictions
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes, load_arrays, to_arrays
from common.privacy.clipping import grid_of
from common.privacy.integer_encoding import Float64, Int64, IntegerEncoding
from common.study.private_round import encoding_of
from common.study.study import Study, Task
from common.wire import Arrays

Said = Mapping[str, Int64]
"""What a path says of a cohort: by parameter, step or table, or the bits of each patient."""

FEATURES = {
    "tiles": {"modality": "pathology", "dim": 24, "max_tokens": 160},
    "slices": {"modality": "radiology", "dim": 9, "max_tokens": 5},
    "pathways": {"modality": "genomics", "dim": 4, "max_tokens": 5, "pool": "row_mean"},
    "table": {"modality": "clinical", "dim": 5},
}
SMALL: dict[str, dict[str, object]] = {
    "moemil": {"size": "small", "instance_patches": 2},
    "frozen_trunk": {"trunk_options": {"size": "small", "width": 32, "expert_width": 32}},
    "abmil": {"width": 24, "attention_hidden": 8},
    "survpgc": {"width": 24, "attention_width": 16, "tower_hidden": 8, "pathway_hidden": 8},
    "cross_attention": {"width": 16, "heads": 2, "blocks": 1, "pathway_hidden": 8},
    "amkd_student": {
        "width": 16,
        "attention_hidden": 8,
        "tower_hidden": 8,
        "teacher_options": {"width": 16, "attention_width": 8, "pathway_hidden": 8},
    },
    "foundation": {"width": 16, "heads": 2, "layers": 1, "latents": 5, "pathway_hidden": 8},
}
"""Options that make a model small enough for tests; any other model is tested as it comes."""


@dataclass(frozen=True)
class Case:
    """A model with its weights, and the patients who come.

    Attributes:
        study: Mode local, two steps a round; evaluation with a subgroup.
        model: With random weights.
        start: Those weights.
        grid: Score cuts on the patients' own scores.
        patients: In the order of their coming.
        device: Where all is computed.
        predicted: What was predicted already, by the ids of a cohort; two paths begin with it.
    """

    study: Study
    model: FusedModel
    start: Arrays
    grid: EvaluationGrid
    patients: PatientDataset
    device: torch.device
    predicted: dict[tuple[str, ...], Predictions] = field(default_factory=dict)


Way = Callable[[Case, PatientDataset], Said]


def random_case(name: str, n: int, seed: int, device: torch.device) -> Case:
    """Return a random case of a registered model with n patients."""
    rng = np.random.default_rng(seed)
    study = study_of(name)
    model = build_model(study)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 10 ** rng.uniform(-1.5, 0.5)
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    patients = random_patients(study, n, rng)
    grid = _spiteful(study, model, patients, device)
    return Case(study, model, to_arrays(model), grid, patients, device)


def study_of(name: str) -> Study:
    """Return the study of a registered model."""
    return Study.model_validate(
        {
            "study_id": "neighbours",
            "synthetic": True,
            "endpoints": {"response": {"positive": "responder"}, "survival": {}},
            "features": FEATURES,
            "model": {"name": name, "options": SMALL.get(name, {})},
            "training": {
                "rounds": 2,
                "local": {"kind": "epochs", "optimizer": "sgd", "lr": 0.5, "epochs": 2},
                "server": {"name": "average"},
            },
            "privacy": {"mode": "local", "evaluation": {"subgroup_epsilon": 1.0}},
            "subgroups": {"sex": {"column": "clinical_sex", "levels": {"f": ["f"], "m": ["m"]}}},
            "sites": [{"site_id": "a"}, {"site_id": "b"}],
        }
    )


def random_patients(study: Study, n: int, rng: np.random.Generator) -> PatientDataset:
    """Return n random patients; a third have far more tiles, a fifth of the inputs is missing."""
    bags: dict[str, list[npt.NDArray[np.floating] | None]] = {name: [] for name in study.features}
    for _ in range(n):
        most = 1000 if rng.random() < 1 / 3 else 9
        for name, spec in study.features.items():
            fixed = spec.pool == "row_mean"
            length = spec.max_tokens if fixed else 1 + int(rng.integers(min(spec.max_tokens, most)))
            bag = rng.standard_normal((length, spec.dim), dtype=np.float32)
            bags[name].append(bag if rng.random() < 0.8 else None)
    return PatientDataset.from_arrays(
        study,
        [f"{rng.integers(10**12):012d}" for _ in range(n)],
        bags,
        np.where(rng.random(n) < 0.8, rng.integers(0, 2, n), np.nan),
        rng.uniform(0.1, 90, n),
        rng.integers(0, 2, n),
        clinical=[{"sex": str(rng.choice(["f", "m"]))} for _ in range(n)],
    )


def differing_bytes(case: Case, say: Way) -> Iterator[int]:
    """Yield, for each patient who comes, how many bytes of a path differ from what must be.

    Args:
        case: n patients, so n neighbouring pairs; the first is an empty cohort and one patient.
        say: One of `PATHS`.
    """
    n = len(case.patients)
    before_and_after = pairwise(say(case, case.patients.select(range(k))) for k in range(n + 1))
    for k, (before, after) in enumerate(before_and_after):
        yield difference(after, [before, say(case, case.patients.select([k]))])


def difference(whole: Said, parts: Sequence[Said]) -> int:
    """Return how many bytes of the whole are not those of its two parts added up."""
    total = 0
    for key in whole.keys() | parts[0].keys() | parts[1].keys():
        nothing = np.zeros_like(next(said[key] for said in (whole, *parts) if key in said))
        summed = parts[0].get(key, nothing) + parts[1].get(key, nothing)
        total += int((whole.get(key, nothing).view(np.uint8) != summed.view(np.uint8)).sum())
    return total


def _gradient_sum(case: Case, patients: PatientDataset) -> Said:
    clip = case.study.privacy.clip
    total = clipped_gradient_sum(case.model, patients, case.study, device=case.device, clip=clip)
    return {name: grid_steps(array, clip) for name, array in total.arrays.items()}


def _local_steps(case: Case, patients: PatientDataset) -> Said:
    """Return the sums of all steps; noise is replaced by the same public numbers in any cohort."""
    shapes = expected_shapes(case.model)
    encoding = _Overheard.like(encoding_of(case.study, shapes))
    load_arrays(case.model, case.start)
    train_private_steps(
        case.model,
        patients,
        case.study,
        encoding=encoding,
        shapes=shapes,
        nominal_patients=4.0,
        device=case.device,
    )
    load_arrays(case.model, case.start)
    return {str(step): grid_steps(total, encoding.clip) for step, total in enumerate(encoding.sums)}


def _predicted(case: Case, patients: PatientDataset) -> Predictions:
    cohort = tuple(patients.patient_ids)
    if cohort not in case.predicted:
        said = predict_all(case.model, patients, case.grid, case.device)
        case.predicted[cohort] = said
    return case.predicted[cohort]


def _scores(case: Case, patients: PatientDataset) -> Said:
    """Return the bits of everything that is predicted of each patient."""
    said = _predicted(case, patients)
    bits = np.column_stack([getattr(said, name) for name in COLUMNS]).view(np.int64)
    return dict(zip(patients.patient_ids, bits, strict=True))


def _tables(case: Case, patients: PatientDataset) -> Said:
    """Return the tables of both phases of release dp, with subgroups, before noise."""
    said = _predicted(case, patients)
    return {
        name: table
        for phase in ("margins", "tables")
        for name, table in tabulate(said, case.grid, phase).arrays.items()
    }


PATHS: dict[str, Way] = {
    "gradient sums": _gradient_sum,
    "private local steps": _local_steps,
    "predictions": _scores,
    "margins, tables and subgroups": _tables,
}
"""Every way by which something of patients leaves a hospital in a private mode."""


@dataclass(frozen=True)
class _Overheard(IntegerEncoding):
    """Keeps the sums that are to be noised, and answers with numbers that no patient moves."""

    sums: list[Float64] = field(default_factory=list, compare=False)

    @classmethod
    def like(cls, encoding: IntegerEncoding) -> "_Overheard":
        return cls(**{part.name: getattr(encoding, part.name) for part in fields(encoding)})

    def noised(self, vector: npt.NDArray[np.float64]) -> Int64:
        self.sums.append(vector)
        steps: Int64 = np.arange(self.dimension, dtype=np.int64) % 5 - 2
        return steps << (self.step_bits - 3)


def grid_steps(values: Float64, clip: float) -> Int64:
    """Return sums in whole steps of the grid of clipped gradients, which they are."""
    steps = values / grid_of(clip)
    whole: Int64 = steps.astype(np.int64)
    assert np.array_equal(whole, steps)
    return whole


def _spiteful(
    study: Study, model: FusedModel, patients: PatientDataset, device: torch.device
) -> EvaluationGrid:
    """Return a grid whose score cuts lie on patients' scores and one bit above them."""
    plain = EvaluationGrid.for_study(study)
    said = predict_all(model, patients, plain, device)
    numbers: dict[Task, int] = {"survival": plain.size.scores, "response": plain.size.response}
    cuts: dict[Task, list[float]] = {}
    for task, n_bins in numbers.items():
        own = scored(said, task, plain).score
        both = np.unique([own, np.nextafter(own, np.inf)])[: n_bins - 1].tolist()
        cuts[task] = [*both, *(100.0 + i for i in range(n_bins - 1 - len(both)))]
    return EvaluationGrid.for_study(study, score_cuts=cuts)
