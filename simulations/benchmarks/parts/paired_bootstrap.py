"""Resample rank metrics of several models on the same patients together.

ROC AUC and Harrell's C are the same thing over different pairs: the share of ordered pairs that
a score orders rightly. With the pairs as a matrix, a bootstrap over patients is one product of
matrices, and every model sees the same resampled patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_CHUNK = 128


@dataclass(frozen=True)
class OrderedPairs:
    """Which patient should have the higher score.

    Attributes:
        rows: (m,) indices of patients who are the higher one of any pair.
        pairs: (m, n) float32, 1 where patient rows[i] should score above patient j.
    """

    rows: npt.NDArray[np.intp]
    pairs: npt.NDArray[np.float32]

    def inside(self, group: npt.NDArray[np.str_]) -> "OrderedPairs":
        """Return the pairs of patients of the same group (n,)."""
        same = group[self.rows][:, None] == group[None, :]
        return OrderedPairs(self.rows, self.pairs * same)

    def agreeing(self, score: FloatArray) -> npt.NDArray[np.float32]:
        """Return (m, n): 1 for pairs that `score` (n,) orders rightly, half for ties."""
        higher = score[self.rows][:, None]
        credit = (higher > score) + 0.5 * (higher == score)
        return np.asarray(self.pairs * credit, dtype=np.float32)


def response_pairs(response: FloatArray) -> OrderedPairs:
    """Return the pairs of ROC AUC: every responder above every non-responder.

    Args:
        response: (n,) 0/1, NaN where unknown (in no pair).
    """
    rows = np.flatnonzero(response == 1)
    lower = (response == 0).astype(np.float32)
    return OrderedPairs(rows, np.broadcast_to(lower, (len(rows), len(lower))).copy())


def survival_pairs(time_months: FloatArray, event: FloatArray) -> OrderedPairs:
    """Return the pairs of Harrell's C: who died above all who were seen alive later.

    At equal times a death stands above a censored patient.

    Args:
        time_months: (n,) follow-up, NaN where unknown (in no pair).
        event: (n,) 1 = died, 0 = censored, NaN where unknown.
    """
    rows = np.flatnonzero((event == 1) & np.isfinite(time_months))
    own = time_months[rows][:, None]
    later = (time_months > own) | ((time_months == own) & (event == 0))
    return OrderedPairs(rows, (later & np.isfinite(event)).astype(np.float32))


@dataclass(frozen=True)
class Difference:
    """First model minus second, on the same patients; low and high: 95 % of the bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the difference with its interval."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class PairedRanks:
    """One metric of several models with bootstrap replicates over the same patients.

    Patients are drawn with replacement inside every stratum.

    Args:
        pairs: The pairs that count.
        scores: Model -> (n,) score, finite wherever a pair counts.
        strata: (n,) stratum of each patient, e.g. the hospital.
        draws: Number of replicates.
        seed: Of the draws.
    """

    def __init__(
        self,
        pairs: OrderedPairs,
        scores: Mapping[str, FloatArray],
        strata: npt.NDArray[np.str_],
        *,
        draws: int,
        seed: int,
    ) -> None:
        weights = _weights(strata, draws, seed)
        total = _sums(pairs, pairs.pairs, weights)
        self._values: dict[str, FloatArray] = {
            name: _sums(pairs, pairs.agreeing(score), weights) / total
            for name, score in scores.items()
        }

    def value(self, name: str) -> float:
        """Return the metric of a model."""
        return float(self._values[name][0])

    def replicates(self, name: str) -> FloatArray:
        """Return the metric of a model on each draw, (draws,)."""
        return self._values[name][1:]

    def difference(self, first: str, second: str) -> Difference:
        """Return first minus second with its 95 % percentile interval."""
        difference = self._values[first] - self._values[second]
        return _with_interval(float(difference[0]), difference[1:])


def mean_difference(ranks: Sequence[PairedRanks], first: str, second: str) -> Difference:
    """Return the mean of first minus second over independent sets of patients, equally drawn.

    Draw d of every set makes draw d of the mean, so the interval narrows as sets are added.
    """
    value = float(np.mean([one.difference(first, second).value for one in ranks]))
    draws = np.mean([one.replicates(first) - one.replicates(second) for one in ranks], axis=0)
    return _with_interval(value, draws)


def _with_interval(value: float, draws: FloatArray) -> Difference:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Difference(value, float(low), float(high))


def _weights(strata: npt.NDArray[np.str_], draws: int, seed: int) -> npt.NDArray[np.float32]:
    """Return (1 + draws, n): ones, then how often each patient was drawn."""
    generator = np.random.default_rng(seed)
    weights = np.ones((1 + draws, len(strata)), dtype=np.float32)
    for name in np.unique(strata):
        members = np.flatnonzero(strata == name)
        even = np.full(len(members), 1 / len(members))
        weights[1:, members] = generator.multinomial(len(members), even, size=draws)
    return weights


def _sums(
    pairs: OrderedPairs, matrix: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]
) -> FloatArray:
    """Return (1 + draws,): the sum over pairs, each weighted by both patients' weights."""
    found = []
    for start in range(0, len(weights), _CHUNK):
        drawn = weights[start : start + _CHUNK]
        by_row = drawn @ matrix.T
        found.append((by_row * drawn[:, pairs.rows]).sum(axis=1, dtype=np.float64))
    return np.concatenate(found)
