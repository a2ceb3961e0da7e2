"""Hold the mergeable tables of one site, or the sum of several.

`SiteTables` holds the int64 arrays named in `table_schema`; `merge` adds them up. The sum over
sites equals the table of all patients together, exactly. `TaskView` is what metrics read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from common.errors import DataError, ErrorCode, ProtocolError
from common.metrics.tables.grid import EvaluationGrid, IntArray
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import FIXED_POINT, tables_of
from common.privacy.plan import Phase
from common.study.study import Task
from common.wire import Arrays


@dataclass(frozen=True)
class SiteTables:
    """Named int64 arrays, additive over sites.

    Attributes:
        arrays: Name -> int64 array, see `table_schema.TABLES`. `survival` is
            H[censored | died, time, score] (2, T, S); `response` is [label, score] (2, R).
    """

    arrays: dict[str, IntArray] = field(default_factory=dict)

    def counts(self, name: str) -> FloatArray | None:
        """Return a count array as float64, or None where the site did not send it."""
        array = self.arrays.get(name)
        return None if array is None else array.astype(np.float64)

    def sums(self, name: str) -> FloatArray | None:
        """Return a fixed-point array as real sums, or None where the site did not send it."""
        counts = self.counts(name)
        return None if counts is None else counts / FIXED_POINT

    @property
    def survival(self) -> FloatArray | None:
        """(2, T, S) counts [censored | died, time, score]."""
        return self.counts("survival")

    @property
    def response(self) -> FloatArray | None:
        """(2, R) counts [label, score]."""
        return self.counts("response")

    def to_arrays(self) -> Arrays:
        """Return the arrays for a message."""
        return dict(self.arrays)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[np.generic]], grid: EvaluationGrid, phase: Phase
    ) -> Self:
        """Return tables that came over the wire, checked against the grid.

        Args:
            arrays: Arrays of a reply, or their sum over sites.
            grid: The public grid both sides use.
            phase: Phase the reply belongs to.

        Raises:
            ProtocolError: A name is missing or unknown, a shape or dtype is wrong, or an exact
                count is negative.
        """
        schemas, exact = tables_of(grid, phase), grid.release == "internal"
        problems = [f"{name}: missing" for name in schemas.keys() - arrays.keys()]
        problems += [f"{name}: not part of the release" for name in arrays.keys() - schemas.keys()]
        for name in schemas.keys() & arrays.keys():
            array, shape = arrays[name], schemas[name].shape(grid)
            if array.dtype != np.int64 or array.shape != shape:
                problems.append(f"{name}: {array.dtype} {array.shape}, expected int64 {shape}")
            elif exact and schemas[name].kind == "count" and np.less(array, 0).any():
                problems.append(f"{name}: negative count")
        if problems:
            raise ProtocolError(
                "the evaluation tables do not fit the study: " + "; ".join(sorted(problems)),
                where=f"evaluation, phase {phase}",
                why="tables on another grid cannot be added up",
                cure="all sites and the server must run the same study and version",
                code=ErrorCode.PAYLOAD,
            )
        return cls({name: np.asarray(arrays[name], np.int64) for name in sorted(schemas)})


def merge(tables: Sequence[SiteTables]) -> SiteTables:
    """Return the sum over sites; order does not matter.

    Raises:
        DataError: There is no table, or sites sent different arrays.
    """
    if not tables:
        raise DataError("there is no evaluation table to add up", cure="at least one site replies")
    first = tables[0].arrays
    for other in tables[1:]:
        if {k: v.shape for k, v in other.arrays.items()} != {k: v.shape for k, v in first.items()}:
            raise DataError(
                "evaluation tables of two sites have different arrays",
                why="tables on different grids cannot be added up",
                cure="use the same grid and phase at every site",
            )
    return SiteTables({name: np.sum([t.arrays[name] for t in tables], axis=0) for name in first})


@dataclass(frozen=True)
class TaskView:
    """Tables of one site, of all sites, or of all but one; the task's own table is among them.

    Attributes:
        tables: The tables.
        grid: The grid they were counted on.
        cell_variance: Variance of the privacy noise of one cell; 0 for exact tables.
    """

    task: ClassVar[Task]
    tables: SiteTables
    grid: EvaluationGrid
    cell_variance: float = 0.0

    def counts(self, name: str) -> FloatArray:
        """Return a count table as float64."""
        return self.tables.arrays[name].astype(np.float64)

    def sums(self, name: str) -> FloatArray:
        """Return a fixed-point table as real sums."""
        return self.counts(name) / FIXED_POINT

    @cached_property
    def table(self) -> FloatArray:
        """Outcome by score: (2, T, S) of survival, (2, R) of response."""
        return self.counts(self.task)
