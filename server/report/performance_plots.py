"""Draw how a model learned and how well it predicts: rounds, ROC, AUC over time, calibration."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes

from common.metrics.survival.auc_curve import AucPoint
from common.metrics.survival.calibration import Reliability
from server.report.svg import BLUE, GREY, WIDTH, new_axes
from server.session.checkpoint import RoundRecord
from server.session.round_metrics import ROUND_METRICS

SQUARE = (4.2, 4.0)
FLAT = (WIDTH, 2.6)


def plot_roc(points: tuple[Sequence[float], Sequence[float]], *, ax: Axes | None = None) -> Axes:
    """Draw a ROC curve.

    Counts with privacy noise can fall below zero; for the eye the curve is kept rising and inside
    the square. The AUC is that of the counts as they are.

    Args:
        points: (false positive rates, true positive rates).
        ax: Where to draw; a new figure by default.
    """
    ax = ax or new_axes(*SQUARE)[0]
    x, y = (np.clip(np.maximum.accumulate(axis), 0.0, 1.0) for axis in points)
    _unit_square(ax, "false positive rate", "true positive rate")
    ax.plot(x, y, color=BLUE, lw=2)
    ax.set_title("Treatment response, all sites")
    return ax


def plot_auc_over_time(
    points: Sequence[AucPoint], horizons: Sequence[float] = (), *, ax: Axes | None = None
) -> Axes:
    """Draw the cumulative/dynamic AUC with its pointwise interval.

    Args:
        points: At least one, by time.
        horizons: Months of the study's horizons, marked where the curve reaches them.
        ax: Where to draw; a new figure by default.
    """
    ax = ax or new_axes(*FLAT)[0]
    months = np.array([point.months for point in points])
    value, low, high = (
        np.array([getattr(point.auc, name) for point in points], np.float64)
        for name in ("value", "ci_low", "ci_high")
    )
    ax.axhline(0.5, color=GREY, lw=1, ls=":")
    ax.fill_between(months, low, high, color=BLUE, alpha=0.15, lw=0)
    ax.plot(months, value, color=BLUE, lw=2)
    at_horizon = np.isin(months, horizons)
    ax.plot(months[at_horizon], value[at_horizon], "o", color=BLUE, ms=6)
    ax.set_xlim(0, float(months[-1]) * 1.02)
    ax.set_ylim(min(0.3, float(np.nanmin(low, initial=0.3))), 1.0)
    note = " (dots: horizons of the study)" if at_horizon.any() else ""
    ax.set_xlabel(f"months of follow-up{note}")
    ax.set_ylabel("AUC")
    ax.set_title("Discrimination between patients who died by a time and those who survived it")
    return ax


def plot_calibration(reliability: Reliability, *, ax: Axes | None = None) -> Axes:
    """Draw predicted against observed, by groups of patients with neighbouring scores.

    Args:
        reliability: The groups of one outcome.
        ax: Where to draw; a new figure by default.
    """
    ax = ax or new_axes(*SQUARE)[0]
    groups = [(g.predicted, g.observed, g.ci_low, g.ci_high) for g in reliability.groups]
    x, y, low, high = np.array(groups).T
    _unit_square(ax, "predicted", "observed")
    ax.vlines(x, low, high, color=BLUE, lw=1.4)
    ax.plot(x, y, color=BLUE, lw=1, marker="o", ms=5)
    ax.set_title(reliability.title)
    return ax


def plot_learning(
    history: Iterable[RoundRecord], metric: str = "update_norm", *, ax: Axes | None = None
) -> Axes:
    """Draw one figure of the rounds.

    Args:
        history: One record per round.
        metric: One of `ROUND_METRICS`.
        ax: Where to draw; a new figure by default.

    Raises:
        ConfigError: There is no such figure.
    """
    figure_of = ROUND_METRICS.get(metric)
    ax = ax or new_axes(*FLAT)[0]
    ax.plot(*np.reshape(figure_of.points(history), (-1, 2)).T, color=BLUE, lw=1.5)
    ax.set(xlabel="round", ylabel=figure_of.unit, title=figure_of.title)
    ax.set_ylim(bottom=0)
    return ax


def _unit_square(ax: Axes, across: str, up: str) -> None:
    ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel=across, ylabel=up)
    for side in (ax.xaxis, ax.yaxis):
        side.set_ticks([0, 0.25, 0.5, 0.75, 1])
        side.set_major_formatter(lambda value, _at: f"{value:.0%}")
