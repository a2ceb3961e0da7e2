"""Estimates under each other with their intervals: hospitals, subgroups, differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from common.metrics.tables.estimate import Estimate
from server.report.svg import BLUE, GREY, INK, WIDTH, figure, to_svg


@dataclass(frozen=True)
class ForestRow:
    """A labelled estimate; `kind` decides its look."""

    label: str
    estimate: Estimate
    kind: str = "site"


@dataclass(frozen=True)
class ForestScale:
    """The axis of a forest.

    Attributes:
        reference: Where the dotted line stands.
        label: What the axis means.
        limits: Ends of the axis; None: around the data, the reference inside.
    """

    reference: float = 0.5
    label: str = "0.5 no discrimination, 1 perfect; bars: 95 %"
    limits: tuple[float, float] | None = (0.0, 1.02)


DIFFERENCE = ForestScale(0.0, "left: the other is better; right: federated", None)

_MARKS = {"overall": ("D", INK), "site": ("o", BLUE), "baseline": ("s", GREY)}


def forest_svg(
    rows: Sequence[ForestRow], *, name: str, title: str, scale: ForestScale | None = None
) -> str:
    """Return the figure; a metric that cannot be estimated keeps its row and says so."""
    scale = scale or ForestScale()
    left, right = scale.limits or _limits(rows, scale.reference)
    with figure(WIDTH, 0.9 + 0.27 * len(rows)) as made:
        axis = made.subplots()
        axis.set_xlim(left, right)
        for y, row in enumerate(reversed(rows)):
            _draw(axis, y, row, left + 0.02 * (right - left))
        axis.axvline(scale.reference, color=GREY, lw=1, ls=":")
        axis.set_ylim(-0.7, len(rows) - 0.3)
        axis.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
        axis.grid(visible=False, axis="y")
        axis.set_xlabel(scale.label)
        axis.set_title(title)
        label = f"{title}: " + "; ".join(f"{row.label} {row.estimate}" for row in rows)
        return to_svg(made, name=name, label=label)


def _draw(axis: Axes, y: int, row: ForestRow, left: float) -> None:
    estimate, (mark, colour) = row.estimate, _MARKS[row.kind]
    if estimate.value is None:
        axis.text(left, y, "not estimable", va="center", color=GREY, fontsize=8, style="italic")
        return
    if estimate.ci_low is not None and estimate.ci_high is not None:
        axis.plot([estimate.ci_low, estimate.ci_high], [y, y], color=colour, lw=1.6)
    axis.plot([estimate.value], [y], marker=mark, color=colour, ms=6)


def _limits(rows: Sequence[ForestRow], reference: float) -> tuple[float, float]:
    told = [reference]
    for row in rows:
        values = (row.estimate.value, row.estimate.ci_low, row.estimate.ci_high)
        told += [value for value in values if value is not None]
    reach = max(0.05, 1.1 * float(np.abs(np.array(told) - reference).max()))
    return reference - reach, reference + reach
