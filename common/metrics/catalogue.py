"""Registry of metrics, in the order in which a report lists them.

Whatever lists, names, orders, draws or judges metrics asks here: reports, cards, exports,
comparisons of models and of arms. To add a metric, add its entry.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf

from common.metrics.metric import VIEWS, Headline, Metric, Scale, View
from common.metrics.response.response_metrics import mean_loss, response_calibration
from common.metrics.response.roc import average_precision, roc_auc, roc_sd
from common.metrics.survival.calibration import d_calibration
from common.metrics.survival.concordance import c_index_sd
from common.metrics.survival.rank_counts import RankCounts
from common.metrics.survival.survival_metrics import (
    brier,
    brier_explained,
    c_index,
    calibration_line,
    integrated_brier,
    mean_estimate,
    observed_over_expected,
    restricted_mean_of,
    stratified_log_rank,
)
from common.metrics.survival.time_auc import integrated_auc, uno_c
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.site_pairs import response_pairs, survival_pairs
from common.metrics.tables.tables import SiteTables
from common.privacy.plan import Release
from common.registry import Registry

RANK, SQUARED, LOSS = Scale("higher", 0, 1), Scale("lower", 0, 1), Scale("lower")
SLOPE, INTERCEPT = Scale("ideal", -inf, ideal=1), Scale("ideal", -inf, ideal=0)
P_VALUE, CHI_SQUARE = Scale("none", 0, 1), Scale("none")
MONTHS = Scale("none", unit="months")

PAIRS_STAY: dict[Release, str] = {
    "dp": "sites do not release pair counts with differential privacy"
}
NO_CENSORING: dict[Release, str] = {
    "internal": "no censoring curve was broadcast: the evaluation had one phase"
}


def _of_pairs(table: str, reason: str) -> Callable[[View], Estimate]:
    """Return the share of pairs of one site ranked rightly: site effects cannot pose as skill."""

    def estimate(view: View) -> Estimate:
        right, pairs = view.counts(table)
        return Estimate(float(right / pairs)) if pairs > 0 else not_estimable(reason)

    return estimate


METRICS: Registry[Metric] = Registry(
    "metric",
    [
        Headline(
            "response_auc", "ROC AUC", "response", RANK, lambda view: view.auc,
            statistic=lambda ranks: roc_auc(ranks.counts),
            short="response AUC", no_skill=0.5, sd=roc_sd, pairs=response_pairs,
            within_sites="response_auc_within_sites",
        ),
        Metric(
            "response_auc_within_sites", "ROC AUC within hospitals",
            "response_site_pairs", RANK,
            _of_pairs("response_site_pairs", "no site has both responders and non-responders"),
            absent=PAIRS_STAY,
        ),
        Metric(
            "response_auprc", "average precision (area under precision-recall)",
            "response", RANK, statistic=lambda ranks: average_precision(ranks.counts),
        ),
        Metric(
            "response_brier", "Brier score", "response_sums", SQUARED,
            lambda view: mean_loss(view, 0),
        ),
        Metric(
            "response_nll", "log-loss", "response_sums", LOSS,
            lambda view: mean_loss(view, 1),
        ),
        Metric(
            "calibration_slope_response", "calibration slope", "response_bin_sums",
            SLOPE, lambda view: response_calibration(view)[0],
        ),
        Metric(
            "calibration_intercept_response", "calibration intercept",
            "response_bin_sums", INTERCEPT, lambda view: response_calibration(view)[1],
        ),
        Headline(
            "c_index", "Harrell's C", "survival", RANK, c_index, statistic=RankCounts.c_index,
            short="C-index", no_skill=0.5, sd=c_index_sd, pairs=survival_pairs,
            within_sites="c_index_within_sites",
        ),
        Metric(
            "c_index_within_sites", "Harrell's C within hospitals",
            "survival_site_pairs", RANK,
            _of_pairs("survival_site_pairs", "no comparable pair within a site"),
            absent=PAIRS_STAY,
        ),
        Metric(
            "uno_c", "Uno's C", "survival", RANK,
            statistic=lambda ranks: uno_c(ranks.counts, ranks.last_edge, ranks.pairs),
        ),
        Metric(
            "iauc", "mean AUC over time", "survival", RANK,
            statistic=lambda ranks: integrated_auc(ranks.counts, ranks.auc),
        ),
        Metric(
            "auc", "AUC at {} months", "survival", RANK,
            statistic=RankCounts.auc_at, horizons=True,
        ),
        Metric(
            "brier", "Brier score at {} months", "brier", SQUARED, brier,
            horizons=True, absent=NO_CENSORING,
        ),
        Metric(
            "brier_explained",
            "Brier score explained at {} months (0 = Kaplan-Meier)", "brier",
            Scale("higher", -inf, 1), brier_explained, horizons=True,
        ),
        Metric(
            "ibs", "integrated Brier score", "brier", SQUARED, integrated_brier,
            absent=NO_CENSORING,
        ),
        Metric(
            "survival_nll", "log-loss of the discrete-time model", "survival_nll", LOSS,
            lambda view: mean_estimate(view.sums("survival_nll"), view.n),
        ),
        Metric(
            "calibration_slope", "calibration slope at {} months", "survival_bin_sums",
            SLOPE, lambda view, months: calibration_line(view, months)[0], horizons=True,
        ),
        Metric(
            "calibration_intercept", "calibration intercept at {} months",
            "survival_bin_sums", INTERCEPT,
            lambda view, months: calibration_line(view, months)[1], horizons=True,
        ),
        Metric(
            "oe", "observed over expected deaths at {} months", "survival_bin_sums",
            Scale("ideal", ideal=1), observed_over_expected, horizons=True,
        ),
        Metric(
            "d_calibration_p", "D-calibration, p (small = miscalibrated)",
            "d_calibration", P_VALUE, lambda view: d_calibration(view.sums("d_calibration")),
        ),
        Metric(
            "log_rank_chi2", "log-rank of the risk groups, chi-square", "survival",
            CHI_SQUARE, lambda view: view.sets.log_rank().chi_square,
        ),
        Metric(
            "log_rank_p", "log-rank of the risk groups, p", "survival", P_VALUE,
            lambda view: view.sets.log_rank().p_value,
        ),
        Metric(
            "log_rank_stratified_chi2", "log-rank stratified by hospital, chi-square",
            "site_log_rank", CHI_SQUARE, lambda view: stratified_log_rank(view).chi_square,
        ),
        Metric(
            "log_rank_stratified_p", "log-rank stratified by hospital, p",
            "site_log_rank", P_VALUE, lambda view: stratified_log_rank(view).p_value,
        ),
        Metric(
            "rmst", "restricted mean survival", "survival", MONTHS,
            lambda view: restricted_mean_of(view, "everybody"),
        ),
        Metric(
            "rmst_low_risk", "restricted mean survival of the low-risk group",
            "survival", MONTHS, lambda view: restricted_mean_of(view, "low"),
        ),
        Metric(
            "rmst_high_risk", "restricted mean survival of the high-risk group",
            "survival", MONTHS, lambda view: restricted_mean_of(view, "high"),
        ),
    ],
)  # fmt: skip
"""Every metric."""


def headlines() -> list[Headline]:
    """Return the metrics by which models are compared."""
    return [metric for metric in METRICS if isinstance(metric, Headline)]


def metrics_at(horizons: Iterable[float]) -> Iterator[Metric]:
    """Yield every metric, those with horizons once for each of `horizons` (months)."""
    for metric in METRICS:
        yield from (metric.at(months) for months in horizons) if metric.horizons else (metric,)


def estimates(
    tables: SiteTables, grid: EvaluationGrid, variance: Mapping[str, float]
) -> dict[str, Estimate]:
    """Return every metric that some tables allow, by name.

    Args:
        tables: Tables of one site, of all sites, or of all but one.
        grid: Their grid.
        variance: Noise variance of one cell by table; empty for exact tables.
    """
    views = {
        task: VIEWS[task](tables, grid, variance.get(task, 0.0))
        for task in grid.tasks
        if task in tables.arrays
    }
    results = {}
    for metric in metrics_at(grid.horizons.tolist()):
        if metric.task in views and metric.table in tables.arrays:
            results[metric.name] = metric.of(views[metric.task])
        elif metric.task in views and grid.release in metric.absent:
            results[metric.name] = not_estimable(metric.absent[grid.release])
    return results
