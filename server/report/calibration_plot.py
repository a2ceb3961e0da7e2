"""Predicted against observed, by groups of patients with neighbouring scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from common.metrics.survival.calibration import ReliabilityGroup
from server.report.svg import BLUE, GREY, WIDTH, figure, to_svg

COLUMNS = 2


def calibration_svg(panels: Mapping[str, Sequence[ReliabilityGroup]]) -> str:
    """Return the figure, one panel a title.

    Args:
        panels: Title -> groups, lowest predicted probability first.
    """
    rows = -(-len(panels) // COLUMNS)
    with figure(WIDTH, 0.3 + 2.6 * rows) as made:
        grid = made.subplots(rows, COLUMNS, squeeze=False)
        axes = list(grid.ravel())
        for axis, (title, groups) in zip(axes, panels.items(), strict=False):
            _draw(axis, title, groups)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        label = "Calibration: " + "; ".join(
            f"{title}: "
            + ", ".join(f"predicted {g.predicted:.0%} observed {g.observed:.0%}" for g in groups)
            for title, groups in panels.items()
        )
        return to_svg(made, name="calibration", label=label)


def _draw(axis: Axes, title: str, groups: Sequence[ReliabilityGroup]) -> None:
    x = np.array([group.predicted for group in groups])
    y = np.array([group.observed for group in groups])
    low = np.array([group.ci_low for group in groups])
    high = np.array([group.ci_high for group in groups])
    axis.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    axis.vlines(x, low, high, color=BLUE, lw=1.4)
    axis.plot(x, y, color=BLUE, lw=1, marker="o", ms=5)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_aspect("equal")
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks([0, 0.25, 0.5, 0.75, 1])
        side.set_major_formatter(lambda value, _at: f"{value:.0%}")
    axis.set_xlabel("predicted")
    axis.set_ylabel("observed")
    axis.set_title(title)
