"""Draw cross-validation folds of a multi-hospital cohort, balanced by outcome."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulations.cohorts.cohort import Cohort

IntArray = npt.NDArray[np.int64]


Split = Callable[[Cohort, int, int], IntArray]


def within_hospital(cohort: Cohort, count: int, seed: int) -> IntArray:
    """Return the fold (n,) of each patient, balanced by outcome inside every hospital.

    Patients of each (hospital, event, response) stratum are shuffled and dealt round robin;
    the deal goes on from stratum to stratum, so that fold sizes differ by at most one per hospital.
    """
    generator = np.random.default_rng(seed)
    fold = np.empty(len(cohort), dtype=np.int64)
    event = np.nan_to_num(cohort.event, nan=2.0)
    response = np.nan_to_num(cohort.response, nan=2.0)
    for hospital in np.unique(cohort.hospital):
        members = np.flatnonzero(cohort.hospital == hospital)
        order = generator.permutation(members)
        order = order[np.lexsort((response[order], event[order]))]
        offset = int(generator.integers(count))
        fold[order] = (np.arange(len(order)) + offset) % count
    return fold


def whole_hospital(cohort: Cohort, count: int, seed: int) -> IntArray:
    """Return the fold (n,) of each patient; a hospital lies in one fold, sizes kept even.

    Hospitals are dealt, largest first with ties shuffled, to the fold with the fewest patients.
    """
    generator = np.random.default_rng(seed)
    names, sizes = np.unique(cohort.hospital, return_counts=True)
    permutation = generator.permutation(len(names))
    order = permutation[np.argsort(-sizes[permutation], kind="stable")]
    load = np.zeros(count)
    fold_of: dict[str, int] = {}
    for index in order:
        lightest = np.flatnonzero(load == load.min())
        fold = int(generator.choice(lightest))
        fold_of[str(names[index])] = fold
        load[fold] += sizes[index]
    return np.array([fold_of[str(name)] for name in cohort.hospital], dtype=np.int64)


SPLITS: dict[Literal["within_hospital", "whole_hospital"], Split] = {
    "within_hospital": within_hospital,
    "whole_hospital": whole_hospital,
}
"""How a scenario holds patients out -> fold of each patient."""
