"""Build batches of one hospital's patients: manifest and feature store to padded tensors.

Absence is a flag: a missing modality is `present` False with one masked zero token, a missing
label `observed` False.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data.bags import BagStore
from client.data.dataset_checks import Labels, check_bags, check_table, find_files
from common.cohort.batch import PatientBatch
from common.cohort.features_h5 import feature_path
from common.cohort.funnel import build_funnel
from common.cohort.manifest import Manifest, PatientRow
from common.errors import DataError
from common.study.modalities import MODALITIES, Modality
from common.study.study import TASKS, Study
from common.study.subgroups import level_indices


@dataclass(frozen=True)
class CohortSummary:
    """Exact counts of a dataset; for the hospital's own eyes.

    Attributes:
        n: Patients.
        n_events: Deaths among patients with known survival.
        n_responders: Responders among patients with known response.
        n_observed: Per task, patients with a known outcome.
        n_present: Per feature set, patients who have it.
    """

    n: int
    n_events: int
    n_responders: int
    n_observed: dict[str, int]
    n_present: dict[str, int]


class PatientDataset:
    """Patients with features and outcomes; read lazily, kept as float32.

    Attributes:
        study: The study whose scaling and sizes hold.
        patient_ids: Patients, in order.
        response: (n,) float32; 1 responder, 0 not, NaN not known.
        time_months: (n,) float32 follow-up, NaN not known.
        event: (n,) float32; 1 died, 0 censored, NaN not known.
        subgroups: Subgroup of the study -> (n,) int64 index of its level, -1 = in none.
        screened: Patients in the manifest, and of these with an outcome of the study; a selection
            keeps those of the whole.
    """

    def __init__(
        self,
        study: Study,
        patient_ids: Sequence[str],
        stores: Mapping[str, BagStore],
        labels: tuple[Labels, Labels, Labels],
        subgroups: Mapping[str, npt.NDArray[np.int64]],
        screened: tuple[int, int],
    ) -> None:
        self.study = study
        self.patient_ids = list(patient_ids)
        self.response, self.time_months, self.event = labels
        self.subgroups, self.screened = dict(subgroups), screened
        self._stores = dict(stores)

    @classmethod
    def from_store(
        cls,
        study: Study,
        manifest: Manifest,
        store: Path,
        *,
        require_outcome: bool = True,
        may_be_empty: bool = False,
    ) -> "PatientDataset":
        """Return the patients of a manifest with what the feature store holds of them.

        Every file's width and fingerprint is checked now, its values when first used.

        Args:
            study: The study.
            manifest: The checked manifest.
            store: Folder `<store>/<feature>/<patient_id>.h5`.
            require_outcome: Keep only patients with an outcome of the study; False to predict.
            may_be_empty: Return no patient rather than refuse; in private modes that no patient
                is left must not show.

        Raises:
            FeatureError: A file is damaged, of another width, or (FEATURE_FINGERPRINT) made by
                another extractor than the study's or than its neighbours.
            DataError: No patient is left.
        """
        rows = _kept_rows(
            study, manifest, store, require_outcome=require_outcome, may_be_empty=may_be_empty
        )
        ids = [row.patient_id for row in rows]
        stores = {
            name: BagStore(name, spec, find_files(name, spec, store, ids))
            for name, spec in study.features.items()
        }
        labels = [
            _labels([getattr(row, name) for row in rows])
            for name in ("response", "time_months", "event")
        ]
        levels = level_indices(study.subgroups, [row.clinical for row in rows])
        n_labelled = sum(row.has_outcome(study.tasks) for row in manifest.rows)
        counts = (len(manifest), n_labelled)
        return cls(study, ids, stores, (labels[0], labels[1], labels[2]), levels, counts)

    @classmethod
    def from_arrays(
        cls,
        study: Study,
        patient_ids: Sequence[str],
        features: Mapping[str, Sequence[npt.NDArray[np.floating] | None]],
        response: npt.ArrayLike,
        time_months: npt.ArrayLike,
        event: npt.ArrayLike,
        *,
        clinical: Sequence[Mapping[str, str | float | None]] | None = None,
    ) -> "PatientDataset":
        """Return a dataset of arrays in memory.

        Args:
            study: The study.
            patient_ids: (n,) unique identifiers.
            features: Per feature set, one raw bag per patient: (T, D), or (D,) for one token, or
                None where absent. Feature sets of the study left out are absent for all.
            response: (n,) 1, 0 or NaN.
            time_months: (n,) follow-up in months, or NaN.
            event: (n,) 1, 0 or NaN.
            clinical: n records, variable -> value, from which the study's subgroups are read;
                without them every patient is in none.

        Raises:
            DataError: Lengths differ, an identifier occurs twice, or a label is impossible.
            FeatureError: A bag has the wrong shape or is not finite.
        """
        ids = [str(patient) for patient in patient_ids]
        labels = (_labels(response), _labels(time_months), _labels(event))
        records = [{} for _ in ids] if clinical is None else list(clinical)
        check_table(study, ids, features, labels, n_records=len(records))
        stores = {
            name: BagStore(name, spec, check_bags(name, spec, ids, features.get(name, ())))
            for name, spec in study.features.items()
        }
        dataset = cls(study, ids, stores, labels, level_indices(study.subgroups, records), (0, 0))
        has_outcome = np.any([dataset.observed(task) for task in study.tasks], axis=0)
        dataset.screened = (len(ids), int(has_outcome.sum()))
        return dataset

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.patient_ids)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that at least one patient has, in canonical order."""
        modalities = {self.study.features[name].modality for name, n in self._counts().items() if n}
        return tuple(m for m in MODALITIES if m in modalities)

    @property
    def records(self) -> CohortSummary:
        """Exact counts; never to leave the hospital."""
        observed = {task: self.observed(task) for task in TASKS}
        return CohortSummary(
            n=len(self),
            n_events=int(np.nansum(self.event[observed["survival"]])),
            n_responders=int(np.nansum(self.response[observed["response"]])),
            n_observed={task: int(flags.sum()) for task, flags in observed.items()},
            n_present=self._counts(),
        )

    def observed(self, task: str) -> npt.NDArray[np.bool_]:
        """Return (n,) whether the outcome of `task` is known and part of the study."""
        if task not in self.study.tasks:
            return np.zeros(len(self), dtype=bool)
        if task == "response":
            return np.isfinite(self.response)
        return np.isfinite(self.time_months) & np.isfinite(self.event)

    def present(self, feature: str) -> npt.NDArray[np.bool_]:
        """Return (n,) whether each patient has a feature set."""
        return np.array([patient in self._stores[feature] for patient in self.patient_ids])

    def select(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "PatientDataset":
        """Return some patients, in the given order; bags in memory are shared."""
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        return PatientDataset(
            self.study,
            [self.patient_ids[i] for i in rows],
            self._stores,
            (self.response[rows], self.time_months[rows], self.event[rows]),
            {name: levels[rows] for name, levels in self.subgroups.items()},
            self.screened,
        )

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> PatientBatch:
        """Return some patients as one batch, in the given order.

        Bags are padded with masked zero tokens to the longest of the batch; one patient alone
        is never padded.

        Raises:
            FeatureError: A feature file is damaged.
            DataError: No patient is requested.
        """
        rows = [int(i) for i in indices]
        if not rows:
            raise DataError("an empty batch was requested", where="PatientDataset.batch")
        patients = [self.patient_ids[i] for i in rows]
        tokens, mask, present = {}, {}, {}
        for name, store in self._stores.items():
            tokens[name], mask[name], present[name] = _stack(store, patients)
        return PatientBatch(
            tokens=tokens,
            mask=mask,
            present=present,
            response=_known(self.response[rows]),
            time_months=_known(self.time_months[rows]),
            event=_known(self.event[rows]),
            observed={task: torch.from_numpy(self.observed(task)[rows]) for task in TASKS},
        )

    def _counts(self) -> dict[str, int]:
        return {name: int(self.present(name).sum()) for name in self._stores}


def _stack(store: BagStore, patients: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens (B, T, D), mask (B, T) and present (B,) of one feature set."""
    bags = [store.get(patient) if patient in store else None for patient in patients]
    longest = max(1, *(0 if bag is None else len(bag) for bag in bags))
    tokens = torch.zeros(len(bags), longest, store.spec.dim)
    mask = torch.zeros(len(bags), longest, dtype=torch.bool)
    for i, bag in enumerate(bags):
        if bag is not None:
            tokens[i, : len(bag)] = bag
            mask[i, : len(bag)] = True
    return tokens, mask, torch.tensor([bag is not None for bag in bags])


def _known(values: Labels) -> Tensor:
    """Return labels with 0 where not known; `observed` says which."""
    return torch.from_numpy(np.nan_to_num(values, nan=0.0))


def _labels(values: npt.ArrayLike | Sequence[float | None]) -> Labels:
    return np.array(values, dtype=np.float32)  # None becomes NaN


def _kept_rows(
    study: Study, manifest: Manifest, store: Path, *, require_outcome: bool, may_be_empty: bool
) -> list[PatientRow]:
    def has_feature(feature: str, patient: str) -> bool:
        return feature_path(store, feature, patient).is_file()

    rows = [
        row
        for row in manifest.rows
        if any(has_feature(feature, row.patient_id) for feature in study.features)
        and (row.has_outcome(study.tasks) or not require_outcome)
    ]
    if not rows and not may_be_empty:
        funnel = build_funnel(manifest.rows, study.features, has_feature, study.tasks)
        requirement = "features and an outcome" if require_outcome else "features"
        raise DataError(
            f"no patient has {requirement}",
            where=str(manifest.path),
            why="; ".join(" ".join(line.split()) for line in funnel.lines()),
            cure="run `tumorboard site extract`, and look at the counts above",
        )
    return rows
