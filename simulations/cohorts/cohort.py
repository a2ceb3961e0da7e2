"""A pooled cohort with a hospital per patient, the source of a simulated consortium."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from client.data.dataset import PatientDataset
from common.contract import canonical_json
from common.errors import DataError
from common.study.study import FeatureSpec, Study

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cohort:
    """n patients of one disease.

    Attributes:
        name: Short name, e.g. `tcga_luad`.
        patient_ids: n identifiers.
        hospital: (n,) hospital of each patient.
        specs: Feature sets with public scaling.
        features: Per feature set, n arrays (T, D) float32, or None where absent.
        response: (n,) 1 responder, 0 not, NaN unknown.
        time_months: (n,) follow-up, NaN unknown.
        event: (n,) 1 died, 0 censored, NaN unknown.
        clinical: n rows of named numbers for the Cox/logistic floor; NaN = missing.
        notes: Sentences every report over this cohort must show.
    """

    name: str
    patient_ids: list[str]
    hospital: npt.NDArray[np.str_]
    specs: dict[str, FeatureSpec]
    features: dict[str, list[npt.NDArray[np.float32] | None]]
    response: FloatArray
    time_months: FloatArray
    event: FloatArray
    clinical: pd.DataFrame
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.patient_ids)

    def __repr__(self) -> str:
        """Return name, size and feature sets; never patients."""
        sets = ", ".join(f"{name} ({spec.dim})" for name, spec in self.specs.items())
        return f"Cohort {self.name}: {len(self)} patients, {len(self.hospitals)} hospitals, {sets}"

    @property
    def hospitals(self) -> dict[str, int]:
        """Number of patients of each hospital, in name order."""
        names, counts = np.unique(self.hospital, return_counts=True)
        return {str(name): int(count) for name, count in zip(names, counts, strict=True)}

    @property
    def outcomes(self) -> pd.DataFrame:
        """One row per patient: patient_id, hospital, time_months, event, response."""
        return pd.DataFrame(
            {
                "patient_id": self.patient_ids,
                "hospital": self.hospital,
                "time_months": self.time_months,
                "event": self.event,
                "response": self.response,
            }
        )

    def digest(self) -> str:
        """Return the SHA-256 of patients, features and outcomes, in hex."""
        specs = {name: spec.model_dump(mode="json") for name, spec in self.specs.items()}
        names = canonical_json([self.patient_ids, self.hospital.tolist(), specs])
        digest = hashlib.sha256(names.encode())
        columns = [self.response, self.time_months, self.event, *self.clinical.to_numpy(float).T]
        for array in (*columns, *(bag for bags in self.features.values() for bag in bags)):
            digest.update(b"absent" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def take(self, indices: npt.NDArray[np.intp]) -> "Cohort":
        """Return the cohort of some patients, in the order given."""
        return replace(
            self,
            patient_ids=[self.patient_ids[i] for i in indices],
            hospital=self.hospital[indices],
            features={name: [bags[i] for i in indices] for name, bags in self.features.items()},
            response=self.response[indices],
            time_months=self.time_months[indices],
            event=self.event[indices],
            clinical=self.clinical.iloc[indices].reset_index(drop=True),
        )

    def by_hospital(self) -> "dict[str, Cohort]":
        """Return the patients of each hospital, in name order."""
        return {name: self.take(np.flatnonzero(self.hospital == name)) for name in self.hospitals}

    def with_features(self, names: list[str]) -> "Cohort":
        """Return the cohort with some feature sets only.

        Raises:
            DataError: A name is not a feature set of this cohort.
        """
        unknown = sorted(set(names) - set(self.specs))
        if unknown:
            raise DataError(
                f"the cohort has no feature set {', '.join(unknown)}",
                where=f"cohort {self.name}",
                cure=f"choose among: {', '.join(sorted(self.specs))}",
            )
        return replace(
            self,
            specs={name: self.specs[name] for name in names},
            features={name: self.features[name] for name in names},
        )

    def dataset(self, study: Study) -> PatientDataset:
        """Return all patients as one dataset of `study`."""
        return PatientDataset.from_arrays(
            study,
            self.patient_ids,
            {name: self.features[name] for name in study.features},
            self.response,
            self.time_months,
            self.event,
            clinical=self._records(study),
        )

    def _records(self, study: Study) -> list[dict[str, float | None]]:
        """Return the clinical columns that the study's subgroups read, one record per patient."""
        variables = {group.variable for group in study.subgroups.values()}
        columns = [name for name in self.clinical.columns if name in variables]
        values = self.clinical[columns].to_numpy(dtype=np.float64)
        return [dict(zip(columns, row, strict=True)) for row in values.tolist()]


def concatenate(cohorts: Sequence[Cohort]) -> Cohort:
    """Return the patients of several cohorts with the same feature sets, one after the other."""
    first = cohorts[0]
    return replace(
        first,
        patient_ids=[patient for cohort in cohorts for patient in cohort.patient_ids],
        hospital=np.concatenate([cohort.hospital for cohort in cohorts]),
        features={
            name: [bag for cohort in cohorts for bag in cohort.features[name]]
            for name in first.features
        },
        response=np.concatenate([cohort.response for cohort in cohorts]),
        time_months=np.concatenate([cohort.time_months for cohort in cohorts]),
        event=np.concatenate([cohort.event for cohort in cohorts]),
        clinical=pd.concat([cohort.clinical for cohort in cohorts], ignore_index=True),
    )


def group_small_hospitals(
    hospital: npt.NDArray[np.str_],
    *,
    minimum: int,
    rest: str,
    region: Mapping[str, str] | None = None,
) -> npt.NDArray[np.str_]:
    """Return the hospital of each patient after the small ones were dealt with.

    Args:
        hospital: (n,) hospital of each patient.
        minimum: Hospitals with fewer patients are small.
        rest: "pool" puts the small ones together as one site `rest`; "region" by the region
            given for each, `region_<name>`; "hold_out" marks them with an empty string, to be
            left out of the consortium.
        region: Hospital to region, for "region".

    Raises:
        DataError: `rest` is not one of the three rules.
    """
    if rest not in {"pool", "region", "hold_out"}:
        raise DataError(
            f"unknown rule '{rest}' for small hospitals", cure="use pool, region or hold_out"
        )
    names, counts = np.unique(hospital, return_counts=True)
    small = set(names[counts < minimum])
    regions = region or {}

    def place(name: str) -> str:
        if name not in small:
            return name
        if rest == "hold_out":
            return ""
        return "rest" if rest == "pool" else f"region_{regions.get(name, 'other')}"

    groups = np.array([place(name) for name in hospital], dtype=np.str_)
    if rest == "region":  # a region that is itself too small joins the others
        again, sizes = np.unique(groups, return_counts=True)
        tiny = {name for name, size in zip(again, sizes, strict=True) if size < minimum}
        groups = np.array(["region_other" if name in tiny else name for name in groups])
    return groups
