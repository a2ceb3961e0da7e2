"""One metric by site with intervals, beside the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from common.metrics.estimate import Estimate
from server.report.svg import BLUE, GREY, INK, figure, to_svg


@dataclass(frozen=True)
class ForestRow:
    """A labelled estimate; `kind` decides its look."""

    label: str
    estimate: Estimate
    kind: str = "site"


_MARKS = {"overall": ("D", INK), "site": ("o", BLUE), "baseline": ("s", GREY)}


def forest_svg(rows: Sequence[ForestRow], *, name: str, title: str) -> str:
    """Return the figure; a metric that cannot be estimated keeps its row and says so."""
    with figure(7.2, 1.0 + 0.34 * len(rows)) as made:
        axis = made.subplots()
        for y, row in enumerate(reversed(rows)):
            _draw(axis, y, row)
        axis.axvline(0.5, color=GREY, lw=1, ls=":")
        axis.set_xlim(0, 1.02)
        axis.set_ylim(-0.7, len(rows) - 0.3)
        axis.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("0.5 = no discrimination, 1 = perfect; bars: 95 % interval")
        axis.set_title(title)
        label = f"{title}: " + "; ".join(f"{row.label} {row.estimate}" for row in rows)
        return to_svg(made, name=name, label=label)


def _draw(axis: Axes, y: int, row: ForestRow) -> None:

    estimate, (mark, colour) = row.estimate, _MARKS[row.kind]
    if estimate.value is None:
        axis.text(0.02, y, "not estimable", va="center", color=GREY, fontsize=9, style="italic")
        return
    if estimate.ci_low is not None and estimate.ci_high is not None:
        axis.plot([estimate.ci_low, estimate.ci_high], [y, y], color=colour, lw=1.6)
    axis.plot([estimate.value], [y], marker=mark, color=colour, ms=6)
