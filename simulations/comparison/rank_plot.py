"""Draw Demsar's critical-difference diagram of ranked arms."""

from __future__ import annotations

from matplotlib.axes import Axes

from server.report.svg import BLUE, GREY, INK, new_axes
from simulations.comparison.critical_difference import Ranking


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
