"""Cumulative/dynamic AUC over time: one estimate at each publishable edge of the grid."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.metrics.survival.rank_counts import RankCounts
from common.metrics.tables.estimate import MIN_SHOWN, Estimate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.score_scale import FloatArray

AUC_EDGE = "auc_edge_"


@dataclass(frozen=True)
class AucPoint:
    """AUC of telling who died by a time from who outlived it.

    Attributes:
        months: The time.
        auc: Estimate with its pointwise 95 % interval.
    """

    months: float
    auc: Estimate


def curve_values(ranks: RankCounts) -> dict[str, FloatArray]:
    """Return the AUC at every edge as `auc_edge_<k>`, to be resampled together with the metrics."""
    return {f"{AUC_EDGE}{edge}": ranks.auc[..., edge - 1] for edge in range(1, ranks.last_edge + 1)}


def split_curve(
    metrics: Mapping[str, Estimate], table: FloatArray | None, grid: EvaluationGrid
) -> tuple[dict[str, Estimate], list[AucPoint]]:
    """Return the named metrics, and the AUC over time that stood among them.

    Exact tables: only edges with at least 5 deaths before and 5 patients after are kept.

    Args:
        metrics: Metrics of all sites, `auc_edge_<k>` among them.
        table: (2, T, S) counts; None without a survival endpoint.
        grid: The grid.
    """
    others = {name: value for name, value in metrics.items() if not name.startswith(AUC_EDGE)}
    points = []
    for name, estimate in metrics.items():
        if not name.startswith(AUC_EDGE) or table is None or estimate.value is None:
            continue
        edge = int(name.removeprefix(AUC_EDGE))
        cases, controls = table[1, :edge].sum(), table[:, edge:].sum()
        if grid.release == "dp" or min(cases, controls) >= MIN_SHOWN:
            points.append(AucPoint(float(grid.time_edges[edge]), estimate))
    return others, sorted(points, key=lambda point: point.months)


def point_estimates(values: Mapping[str, FloatArray]) -> dict[str, Estimate]:
    """Return the AUC at edges as estimates without intervals; undefined ones are left out."""
    return {
        name: Estimate(float(np.clip(value, 0.0, 1.0)))
        for name, value in values.items()
        if name.startswith(AUC_EDGE) and np.isfinite(value)
    }
