"""Draw Kaplan-Meier curves by risk group with confidence bands and the numbers at risk."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from common.metrics.survival.kaplan_meier import SurvivalCurve
from common.metrics.tables.estimate import Estimate
from server.report.svg import BLUE, GREY, ORANGE, WIDTH, new_axes

COLOURS = {"low risk": BLUE, "high risk": ORANGE, "all patients": GREY}
TABLE_TIMES = 9
TICK_MONTHS = (1, 2, 3, 6, 12, 24, 36, 60)
MINIMUM_SHOWN = 5
SIZE = (WIDTH, 3.9)


def plot_survival(
    curves: Sequence[SurvivalCurve],
    *,
    p_value: Estimate | None,
    exact: bool = True,
    ax: Axes | None = None,
    table: Axes | None = None,
) -> Axes:
    """Draw the curves, and the patients at risk below them.

    Args:
        curves: Groups to draw.
        p_value: Of the log-rank test between the groups, if any was made.
        exact: Whether counts are exact; then cells below five are shown as "<5".
        ax: Where the curves go; a new figure with both by default.
        table: Where the patients at risk go, on the same x axis; nowhere if only `ax` is given.
    """
    groups = _shown(curves)
    if ax is None:
        ax, table = new_axes(*SIZE, heights(curves))
    last = max(_last_time(curve) for curve in groups)
    for curve in groups:
        _draw(ax, curve)
    ax.set_ylim(0, 1.02)
    ax.set_xlim(0, last)
    ax.set_ylabel("alive")
    split = f"Survival by predicted risk (log-rank {p_in_words(p_value)})"
    ax.set_title(split if len(groups) > 1 else "Survival; the scores make one risk group only")
    ax.legend(loc="lower left")
    ax.yaxis.set_major_formatter(lambda value, _at: f"{value:.0%}")
    ticks = _ticks(last)
    ax.set_xticks(ticks)
    (table or ax).set_xlabel(f"months of follow-up{'; rows: patients at risk' if table else ''}")
    if table is not None:
        _at_risk(table, groups, ticks, exact=exact)
    return ax


def heights(curves: Sequence[SurvivalCurve]) -> tuple[float, float]:
    """Return the relative heights of the curves and of the patients at risk below them."""
    return 5.0, 0.5 + 0.4 * len(_shown(curves))


def p_in_words(p_value: Estimate | None) -> str:
    """Return a p value as a title has it.

    >>> p_in_words(Estimate(0.00002))
    'p < 0.001'
    """
    if p_value is None or p_value.value is None:
        return "not estimable"
    return "p < 0.001" if p_value.value < 0.001 else f"p = {p_value.value:.3f}"


def survival_in_words(curves: Sequence[SurvivalCurve]) -> str:
    """Return the figure for a screen reader."""
    return "Kaplan-Meier curves: " + "; ".join(_in_words(curve) for curve in _shown(curves))


def _shown(curves: Sequence[SurvivalCurve]) -> Sequence[SurvivalCurve]:
    """Return the risk groups, or everybody where there is one group only."""
    groups = [curve for curve in curves if curve.label != "all patients"]
    whole = [curve for curve in curves if curve.label == "all patients"]
    return groups if len(groups) > 1 else whole or groups


def _draw(axis: Axes, curve: SurvivalCurve) -> None:
    time = np.concatenate(([0.0], curve.time_months))
    colour = COLOURS.get(curve.label, GREY)

    def steps(values: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.concatenate(([1.0], np.asarray(values, np.float64)))

    axis.fill_between(
        time, steps(curve.ci_low), steps(curve.ci_high), step="post", color=colour, alpha=0.15, lw=0
    )
    axis.step(time, steps(curve.survival), where="post", color=colour, lw=2, label=curve.label)


def _at_risk(
    axis: Axes,
    curves: Sequence[SurvivalCurve],
    times: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    *,
    exact: bool,
) -> None:
    axis.set_ylim(-0.6, len(curves) - 0.4)
    axis.set_yticks(range(len(curves)), [curve.label for curve in curves])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.tick_params(axis="y", pad=18)
    for row, curve in enumerate(curves):
        start = np.concatenate(([0.0], curve.time_months))
        at_risk = np.concatenate(([curve.n_patients], curve.at_risk))
        for time in times:
            count = float(at_risk[np.searchsorted(start, time, side="right") - 1])
            # An exact curve is only shown while enough are followed; beyond its end there are few.
            few = exact and (0 < count < MINIMUM_SHOWN or time > start[-1])
            text = "<5" if few else f"{max(count, 0):.0f}"
            axis.text(float(time), row, text, ha="center", va="center", fontsize=9)


def _ticks(last: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return round months up to the last, at most `TABLE_TIMES` of them."""
    step = next((s for s in TICK_MONTHS if last / s < TABLE_TIMES), TICK_MONTHS[-1])
    return np.arange(0, last + 1e-9, step, dtype=np.float64)


def _last_time(curve: SurvivalCurve) -> float:
    with_patients = np.flatnonzero(curve.at_risk > 0)
    index = min(int(with_patients[-1]) + 1 if len(with_patients) else 0, len(curve.time_months) - 1)
    return float(curve.time_months[index])


def _in_words(curve: SurvivalCurve) -> str:
    middle = int(np.searchsorted(curve.time_months, 36.0))
    middle = min(middle, len(curve.time_months) - 1)
    alive, when = curve.survival[middle], curve.time_months[middle]
    return f"{curve.label}, {alive:.0%} alive at {when:.0f} months"
