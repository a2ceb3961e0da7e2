"""Draw a forest plot: estimates with intervals for hospitals, subgroups or differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from matplotlib.axes import Axes

from common.metrics.metric import Headline
from common.metrics.tables.estimate import Estimate
from server.report.svg import BLUE, GREY, INK, WIDTH, new_axes


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


def value_scale(metric: Headline) -> ForestScale:
    """Return the axis for values of a metric."""
    low, high, best = metric.scale.low, metric.scale.high, metric.scale.best
    label = f"{metric.no_skill:g} no discrimination, {best:g} perfect; bars: 95 %"
    limits = (low, high + 0.02 * (high - low)) if isfinite(high - low) else None
    return ForestScale(metric.no_skill, label, limits)


def difference_scale(metric: Headline) -> ForestScale:
    """Return the axis for the federated model minus another."""
    better, worse = ("right", "left") if metric.scale.direction == "higher" else ("left", "right")
    return ForestScale(0.0, f"{worse}: the other is better; {better}: federated", None)


_MARKS = {"overall": ("D", INK), "site": ("o", BLUE), "baseline": ("s", GREY)}


def forest_size(rows: Sequence[ForestRow]) -> tuple[float, float]:
    """Return width and height of a forest in inches."""
    return WIDTH, 0.9 + 0.27 * len(rows)


def plot_forest(
    rows: Sequence[ForestRow],
    *,
    title: str = "",
    scale: ForestScale | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw estimates under each other; one that cannot be estimated keeps its row and says so.

    Args:
        rows: The estimates, the first on top.
        title: What they estimate.
        scale: The axis; that of an AUC by default.
        ax: Where to draw; a new figure by default.
    """
    scale, ax = scale or ForestScale(), ax or new_axes(*forest_size(rows))[0]
    left, right = scale.limits or _limits(rows, scale.reference)
    ax.set_xlim(left, right)
    for y, row in enumerate(reversed(rows)):
        _draw(ax, y, row, left + 0.02 * (right - left))
    ax.axvline(scale.reference, color=GREY, lw=1, ls=":")
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(scale.label)
    ax.set_title(title)
    return ax


def _draw(axis: Axes, y: int, row: ForestRow, left: float) -> None:
    estimate, (mark, colour) = row.estimate, _MARKS[row.kind]
    if estimate.value is None:
        axis.text(left, y, "not estimable", va="center", color=GREY, fontsize=8, style="italic")
        return
    if estimate.ci_low is not None and estimate.ci_high is not None:
        axis.plot([estimate.ci_low, estimate.ci_high], [y, y], color=colour, lw=1.6)
    axis.plot([estimate.value], [y], marker=mark, color=colour, ms=6)


def _limits(rows: Sequence[ForestRow], reference: float) -> tuple[float, float]:
    bounds = [reference]
    for row in rows:
        values = (row.estimate.value, row.estimate.ci_low, row.estimate.ci_high)
        bounds += [value for value in values if value is not None]
    reach = max(0.05, 1.1 * float(np.abs(np.array(bounds) - reference).max()))
    return reference - reach, reference + reach
