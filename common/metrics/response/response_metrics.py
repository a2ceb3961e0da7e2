"""Estimate each response metric from the tables of one site, of all sites, or of all but one."""

from dataclasses import replace
from functools import cached_property

import numpy as np

from common.metrics.response.roc import roc_estimate, roc_sd
from common.metrics.survival.calibration import recalibration
from common.metrics.survival.kaplan_meier import Z95
from common.metrics.survival.rank_counts import RankCounts
from common.metrics.survival.survival_metrics import mean_estimate
from common.metrics.tables.estimate import MIN_SHOWN, Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.tables import TaskView

MIN_CLASS = 2


class ResponseView(TaskView):
    """Response tables; `table` is (2, R) counts [label, score]."""

    task = "response"
    undefined = "no responder"

    @cached_property
    def ranks(self) -> RankCounts:
        """The table as rank statistics read it."""
        return RankCounts(self.table, self.grid)

    @cached_property
    def auc(self) -> Estimate:
        """Area under the ROC."""
        return auc_with_interval(self.table, noisy=self.cell_variance > 0)

    def refusal(self, _months: float | None = None) -> str | None:
        """Return why ranks say nothing, or None."""
        return self.auc.reason if self.auc.value is None else None


def auc_with_interval(table: FloatArray, *, noisy: bool = False) -> Estimate:
    """Return the AUC of one table (2, R) with DeLong's interval on the log-odds scale.

    Of an exact table with one patient in a class it is not estimable, as a C-index from one
    event is not: that one patient's rank is all it says.
    """
    auc, smaller = roc_estimate(table, noisy=noisy), float(table.sum(-1).min())
    if auc.value is not None and not noisy and smaller < MIN_CLASS:
        name = "responders" if table[1].sum() < MIN_CLASS else "non-responders"
        return not_estimable(f"fewer than 2 {name}: an AUC from one is uninformative")
    if auc.value is not None and not noisy and smaller < MIN_SHOWN:
        auc = replace(auc, reason="fewer than 5 responders or non-responders")
    if auc.value is None or not 0 < auc.value < 1:
        return auc
    half = Z95 * roc_sd(table) / (auc.value * (1 - auc.value))
    logit = np.log(auc.value / (1 - auc.value))
    low, high = 1 / (1 + np.exp(-(logit - half))), 1 / (1 + np.exp(-(logit + half)))
    return auc.with_interval(float(low), float(high))


def mean_loss(view: ResponseView, column: int) -> Estimate:
    """Return the mean of a loss over patients: column 0 the squared error, 1 the log-loss."""
    return mean_estimate(view.sums("response_sums")[:, column], float(view.table.sum()))


def response_calibration(view: ResponseView) -> tuple[Estimate, Estimate]:
    """Return slope and intercept of the response on the predicted log-odds."""
    counts, log_odds = view.table.sum(0), view.sums("response_bin_sums")[1]
    logit = np.where(counts > 0, log_odds / np.where(counts > 0, counts, 1), 0.0)
    return recalibration(logit, view.table[1], view.table[0])
