"""Cumulative/dynamic AUC over time with its pointwise interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.metrics.survival.auc_curve import AucPoint
from server.report.svg import BLUE, GREY, WIDTH, figure, to_svg


def auc_over_time_svg(points: Sequence[AucPoint], horizons: Sequence[float]) -> str:
    """Return the figure.

    Args:
        points: At least one, by time.
        horizons: Months of the study's horizons, marked where the curve reaches them.
    """
    months = np.array([point.months for point in points])
    value, low, high = (
        np.array([getattr(point.auc, name) for point in points], np.float64)
        for name in ("value", "ci_low", "ci_high")
    )
    with figure(WIDTH, 2.6) as made:
        axis = made.subplots()
        axis.axhline(0.5, color=GREY, lw=1, ls=":")
        axis.fill_between(months, low, high, color=BLUE, alpha=0.15, lw=0)
        axis.plot(months, value, color=BLUE, lw=2)
        reached = np.isin(months, horizons)
        axis.plot(months[reached], value[reached], "o", color=BLUE, ms=6)
        axis.set_xlim(0, float(months[-1]) * 1.02)
        axis.set_ylim(min(0.3, float(np.nanmin(low, initial=0.3))), 1.0)
        axis.set_xlabel("months of follow-up (dots: horizons of the study)")
        axis.set_ylabel("AUC")
        axis.set_title("Telling who died by a time from who outlived it")
        told = "; ".join(
            f"{m:g} months {point.auc}"
            for m, point, known in zip(months, points, reached, strict=True)
            if known
        )
        return to_svg(made, name="auc-time", label=f"AUC over time: {told}")
