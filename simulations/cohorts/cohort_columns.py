"""Declare which columns of a patient table are identifiers, outcomes and features."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field, model_validator

from common.cohort.outcomes import TimeUnit
from common.contract import Contract
from common.study.modalities import Modality
from common.study.study import PublicScaling


class TableFeatures(Contract):
    """Columns that make one feature set: a vector per patient, or none where all are empty."""

    modality: Modality
    columns: list[str] = Field(min_length=1, description="names, or patterns such as 'gene_*'")
    scaling: PublicScaling = Field(
        default=PublicScaling(), description="public constants, never estimated from the table"
    )


class CohortColumns(Contract):
    """Which columns of a table say what; the table holds one row per patient.

    Example:
        >>> columns = {"time": "days", "time_unit": "days", "event": "died"}
        >>> features = {"genomics": ["gene_*"]}
        >>> CohortColumns(**columns, features=features).features["genomics"].modality
        'genomics'
    """

    patient: str = "patient_id"
    hospital: str = "hospital"
    time: str | None = Field(default=None, description="follow-up; needs event")
    time_unit: TimeUnit = "months"
    event: str | None = Field(default=None, description="1 = died, 0 = alive when last seen")
    response: str | None = Field(default=None, description="1 = responder, 0 = not")
    features: dict[str, TableFeatures] = Field(
        min_length=1,
        description="name -> modality and columns; columns alone where the name is a modality",
    )
    clinical: list[str] = Field(
        default_factory=list,
        description="columns of the clinical floor; by default those of clinical feature sets",
    )

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        """Read `{"genomics": ["gene_*"]}` as a feature set of that modality."""
        if not isinstance(data, Mapping) or not isinstance(data.get("features"), Mapping):
            return data
        features = {
            name: {"modality": name, "columns": entry} if isinstance(entry, list) else entry
            for name, entry in data["features"].items()
        }
        return {**data, "features": features}

    @property
    def roles(self) -> dict[str, str]:
        """Column of the table -> what it says, for identifiers and outcomes."""
        keys = ("patient", "hospital", "time", "event", "response")
        return {getattr(self, key): key for key in keys if getattr(self, key) is not None}

    def matching(self, patterns: Iterable[str], present: Iterable[str]) -> list[str]:
        """Return which columns are named or matched, in table order; never one with a role."""
        free = [name for name in present if name not in self.roles]
        exact = set(patterns)
        patterns = exact - set(free)
        return [
            name for name in free if name in exact or any(fnmatchcase(name, p) for p in patterns)
        ]
