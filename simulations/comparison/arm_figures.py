"""Figures of a comparison: arms with their spread, and the critical-difference diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.report.svg import BLUE, GREY, INK, figure, to_svg
from simulations.comparison.critical_difference import Ranking


def forest(rows: Sequence[Mapping[str, Any]], reference: str, *, title: str, name: str) -> str:
    """Return the arms' means with one standard deviation of a fold, best on top."""
    shown = sorted((row for row in rows if row["mean"] is not None), key=lambda r: r["mean"])
    with figure(7.2, 1.1 + 0.3 * max(len(shown), 1)) as made:
        axis = made.subplots()
        for y, row in enumerate(shown):
            is_reference = row["arm"] == reference
            colour = INK if is_reference else BLUE
            spread = row["sd"] or 0.0
            ends = [row["mean"] - spread, row["mean"] + spread]
            axis.plot(ends, [y, y], color=colour, lw=1.6, solid_capstyle="butt")
            axis.plot([row["mean"]], [y], "D" if is_reference else "o", color=colour, ms=5.5)
        axis.axvline(0.5, color=GREY, lw=1, ls=":")
        axis.set_yticks(range(len(shown)), [row["arm"] for row in shown])
        axis.set_ylim(-0.7, len(shown) - 0.3)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("mean over folds and seeds; bars: one standard deviation of a fold")
        label = "; ".join(f"{row['arm']} {row['mean']:.3f}" for row in reversed(shown))
        return to_svg(made, name=name, label=f"{title}: {label}")


def difference_diagram(ranking: Ranking, *, title: str, name: str) -> str:
    """Return Demsar's diagram: mean ranks, best on the left; bars join what does not differ."""
    arms, k = list(ranking.ranks), len(ranking.ranks)
    half = (k + 1) // 2
    top = 0.55 + 0.32 * len(ranking.groups)
    with figure(7.4, 0.9 + 0.3 * (top + half)) as made:
        axis = made.subplots()
        axis.set_axis_off()
        axis.set_xlim(1 - 0.42 * k, k + 0.42 * k)
        axis.set_ylim(-top - half - 0.2, 2.0)
        axis.plot([1, k], [0, 0], color=INK, lw=1.2)
        for rank in range(1, k + 1):
            axis.plot([rank, rank], [0, 0.18], color=INK, lw=1)
            axis.text(rank, 0.32, str(rank), ha="center", fontsize=9)
        axis.plot([1, 1 + ranking.critical_difference], [1.25, 1.25], color=INK, lw=2)
        told = f"critical difference {ranking.critical_difference:.2f}"
        axis.text(1 + ranking.critical_difference / 2, 1.45, told, ha="center", fontsize=9)
        for level, group in enumerate(ranking.groups):
            ends = [ranking.ranks[group[0]] - 0.04, ranking.ranks[group[-1]] + 0.04]
            axis.plot(ends, [-0.35 - 0.32 * level] * 2, color=BLUE, lw=3.2)
        for place, arm in enumerate(arms):
            _label(axis, place, arm, ranking, half=half, top=top)
        axis.set_title(title)
        label = "; ".join(f"{arm} {rank:.2f}" for arm, rank in ranking.ranks.items())
        return to_svg(made, name=name, label=f"{title}, mean ranks: {label}")


def _label(axis: Any, place: int, arm: str, ranking: Ranking, *, half: int, top: float) -> None:
    k, rank = len(ranking.ranks), ranking.ranks[arm]
    left = place < half
    y = -top - (place if left else k - 1 - place)
    x = 0.85 if left else k + 0.15
    axis.plot([rank, rank, x], [0, y, y], color=GREY, lw=0.9)
    text = f"{arm}  {rank:.2f}" if left else f"{rank:.2f}  {arm}"
    axis.text(x - 0.06 if left else x + 0.06, y, text, ha="right" if left else "left", va="center")
