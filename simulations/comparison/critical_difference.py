"""Rank arms over several hospitals: Friedman's test and Nemenyi's critical difference.

Demsar, Statistical comparisons of classifiers over multiple data sets, 2006. A block is what he
calls a data set: one hospital of one scenario, with its own patients. Folds and seeds of one
hospital share patients, so they are averaged before arms are ranked.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from server.report.svg import BLUE, GREY, INK, new_axes

ALPHA = 0.05
MINIMUM_BLOCKS = 5
"""Below, the chi-square approximation of Friedman's test is poor and ranks mean little."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of k arms over N blocks; rank 1 is best.

    Attributes:
        ranks: Arm -> mean rank, best first.
        n_blocks: N.
        p_value: Of the Iman-Davenport form of Friedman's test that all arms are alike.
        critical_difference: Mean ranks farther apart than this differ at 5 % (Nemenyi).
        groups: Largest sets of arms, best first, whose ranks lie within it.
    """

    ranks: dict[str, float]
    n_blocks: int
    p_value: float
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]


def rank_arms(table: pd.DataFrame) -> Ranking | None:
    """Return the ranking of arms, or None where there is too little to rank.

    Args:
        table: One row a block, one column an arm, higher is better; blocks with a missing value
            are left out.
    """
    complete = table.dropna(axis=0, how="any")
    n, k = complete.shape
    if n < MINIMUM_BLOCKS or k < 2:
        return None
    ranks = stats.rankdata(-complete.to_numpy(dtype=np.float64), axis=1).mean(axis=0)
    order = sorted(zip(ranks, complete.columns, strict=True))
    named = {str(arm): float(rank) for rank, arm in order}
    distance = nemenyi_distance(k, n)
    return Ranking(named, n, friedman_p(ranks, n), distance, _groups(named, distance))


def friedman_p(mean_ranks: FloatArray, n_blocks: int) -> float:
    """Return the p-value of F = (N-1) chi2 / (N(k-1) - chi2) with (k-1), (k-1)(N-1) d.f.

    chi2 = 12 N / (k (k+1)) (sum of squared mean ranks - k (k+1)^2 / 4), as in Demsar (2006).
    """
    k = len(mean_ranks)
    squares = float(np.square(mean_ranks).sum())
    chi2 = 12 * n_blocks / (k * (k + 1)) * (squares - k * (k + 1) ** 2 / 4)
    rest = n_blocks * (k - 1) - chi2
    if rest <= 1e-12:
        return 0.0
    return float(stats.f.sf((n_blocks - 1) * chi2 / rest, k - 1, (k - 1) * (n_blocks - 1)))


def nemenyi_distance(n_arms: int, n_blocks: int) -> float:
    """Return q sqrt(k (k+1) / (6 N)), q the studentised range at 5 % divided by sqrt(2).

    Example:
        >>> round(nemenyi_distance(4, 14), 2)
        1.25
    """
    q = float(stats.studentized_range.ppf(1 - ALPHA, n_arms, np.inf)) / math.sqrt(2)
    return q * math.sqrt(n_arms * (n_arms + 1) / (6 * n_blocks))


def _groups(ranks: dict[str, float], distance: float) -> tuple[tuple[str, ...], ...]:
    arms = list(ranks)
    found: list[tuple[str, ...]] = []
    reached = 0
    for start, arm in enumerate(arms):
        end = max(i for i, other in enumerate(arms) if ranks[other] - ranks[arm] <= distance) + 1
        if end - start > 1 and end > reached:
            found.append(tuple(arms[start:end]))
        reached = max(reached, end)
    return tuple(found)


def ranking_size(ranking: Ranking) -> tuple[float, float]:
    """Return width and height of the diagram in inches."""
    return 7.4, 0.9 + 0.3 * (_top(ranking) + _half(ranking))


def plot_ranking(ranking: Ranking, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw mean ranks, best on the left; bars join arms that do not differ.

    Args:
        ranking: The ranked arms.
        title: By what they are ranked.
        ax: Where to draw; a new figure by default.
    """
    ax = ax or new_axes(*ranking_size(ranking))[0]
    k, top = len(ranking.ranks), _top(ranking)
    ax.set_axis_off()
    ax.set_xlim(1 - 0.42 * k, k + 0.42 * k)
    ax.set_ylim(-top - _half(ranking) - 0.2, 2.0)
    ax.plot([1, k], [0, 0], color=INK, lw=1.2)
    for rank in range(1, k + 1):
        ax.plot([rank, rank], [0, 0.18], color=INK, lw=1)
        ax.text(rank, 0.32, str(rank), ha="center", fontsize=9)
    ax.plot([1, 1 + ranking.critical_difference], [1.25, 1.25], color=INK, lw=2)
    distance = f"critical difference {ranking.critical_difference:.2f}"
    ax.text(1 + ranking.critical_difference / 2, 1.45, distance, ha="center", fontsize=9)
    for level, group in enumerate(ranking.groups):
        ends = [ranking.ranks[group[0]] - 0.04, ranking.ranks[group[-1]] + 0.04]
        ax.plot(ends, [-0.35 - 0.32 * level] * 2, color=BLUE, lw=3.2)
    for place, arm in enumerate(ranking.ranks):
        _label(ax, place, arm, ranking)
    ax.set_title(title)
    return ax


def _half(ranking: Ranking) -> int:
    return (len(ranking.ranks) + 1) // 2


def _top(ranking: Ranking) -> float:
    return 0.55 + 0.32 * len(ranking.groups)


def _label(ax: Axes, place: int, arm: str, ranking: Ranking) -> None:
    k, rank = len(ranking.ranks), ranking.ranks[arm]
    left = place < _half(ranking)
    y = -_top(ranking) - (place if left else k - 1 - place)
    x = 0.85 if left else k + 0.15
    ax.plot([rank, rank, x], [0, y, y], color=GREY, lw=0.9)
    text = f"{arm}  {rank:.2f}" if left else f"{rank:.2f}  {arm}"
    ax.text(x - 0.06 if left else x + 0.06, y, text, ha="right" if left else "left", va="center")
