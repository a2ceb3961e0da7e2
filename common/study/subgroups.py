"""Declare public subgroups of patients: sex, age band, stage or other columns of a study.

A study declares them before any patient is read, so a level never follows from the data. Every
patient is in at most one level of each subgroup; who has no value, or one that no level names,
is in none and counts in the overall figures alone.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictFloat, StrictInt, StrictStr, model_validator

from common.contract import Contract

SubgroupName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
LevelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _+-]{0,31}$")]
Cell = StrictStr | StrictInt | StrictFloat
"""A cell of the manifest, or how a study writes it: text, or a number."""

UNKNOWN = -1
"""Index of the level of a patient who is in none."""

PREFIX = "clinical_"


class Subgroup(Contract):
    """How one clinical column divides patients: named levels of its values, or bands.

    `levels` maps a name to the cells that mean it; text is compared without regard to case,
    numbers as numbers. `bands` are increasing borders of a number: [50, 65] makes three levels,
    below 50, from 50 to below 65, and from 65.
    """

    column: str = Field(
        pattern=r"^clinical_[A-Za-z0-9][A-Za-z0-9_]*$", description="column of the manifest"
    )
    levels: dict[LevelName, list[Cell]] | None = Field(default=None, min_length=2, max_length=12)
    bands: list[float] | None = Field(default=None, min_length=1, max_length=11)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.levels is None) == (self.bands is None):
            raise ValueError("give either levels or bands")
        if self.bands is not None and any(b <= a for a, b in pairwise(self.bands)):
            raise ValueError("bands must increase")
        level_of: dict[str | float, str] = {}
        for level, cells in (self.levels or {}).items():
            if not cells:
                raise ValueError(f"level '{level}' names no value")
            for cell in cells:
                other = level_of.setdefault(_key(cell), level)
                if other != level:
                    raise ValueError(f"'{cell}' is in the levels '{other}' and '{level}'")
        return self

    @property
    def variable(self) -> str:
        """Name of the column without `clinical_`."""
        return self.column.removeprefix(PREFIX)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the levels: bands from low to high, levels by name.

        A canonical study keeps no order of keys, so neither does this.
        """
        if self.bands is None:
            return tuple(sorted(self.levels or {}))
        borders = [f"{border:g}" for border in self.bands]
        inner = (f"{low} to below {high}" for low, high in pairwise(borders))
        return (f"below {borders[0]}", *inner, f"{borders[-1]} and over")

    def index(self, cell: str | float | None) -> int:
        """Return the level a cell of the manifest belongs to, `UNKNOWN` if to none.

        >>> Subgroup(column="clinical_age", bands=[50, 65]).index(65.0)
        2
        """
        if cell is None or cell != cell:
            return UNKNOWN
        if self.bands is not None:
            if isinstance(cell, str):
                return UNKNOWN
            return sum(cell >= border for border in self.bands)
        key, levels = _key(cell), self.levels or {}
        for index, name in enumerate(self.names):
            if any(_key(value) == key for value in levels[name]):
                return index
        return UNKNOWN


def level_indices(
    subgroups: Mapping[str, Subgroup], records: Sequence[Mapping[str, str | float | None]]
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the level of every patient by subgroup, (n,) int64 each, `UNKNOWN` = in none.

    Args:
        subgroups: Those of the study.
        records: Clinical values of n patients by variable (the column without `clinical_`).
    """
    return {
        name: np.array([group.index(record.get(group.variable)) for record in records], np.int64)
        for name, group in subgroups.items()
    }


def unmatched_values(
    subgroup: Subgroup, records: Sequence[Mapping[str, str | float | None]]
) -> dict[str, int]:
    """Return the filled cells that no level names, with how often; for the hospital's own eyes."""
    cells = (record.get(subgroup.variable) for record in records)
    return Counter(str(c) for c in cells if c is not None and subgroup.index(c) == UNKNOWN)


def _key(cell: str | float) -> str | float:
    """Return what two cells are compared by: a number, or text in one case."""
    if not isinstance(cell, str):
        return float(cell)
    try:
        number = float(cell)
    except ValueError:
        return " ".join(cell.split()).casefold()
    return number if math.isfinite(number) else cell.casefold()
