"""All response metrics of some tables: one site, all sites, all but one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common.metrics.response.roc import average_precision, roc_auc, roc_estimate, roc_sd
from common.metrics.survival.brier import mean_estimate
from common.metrics.survival.calibration import recalibration
from common.metrics.survival.kaplan_meier import Z95
from common.metrics.tables.estimate import MIN_SHOWN, Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.tables import SiteTables

MIN_CLASS = 2


def response_statistic(tables: FloatArray) -> dict[str, FloatArray]:
    """Return AUC and average precision of tables (b, 2, R), for resampling."""
    return {"response_auc": roc_auc(tables), "response_auprc": average_precision(tables)}


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


def response_metrics(tables: SiteTables, *, noisy: bool = False) -> dict[str, Estimate]:
    """Return every response metric that the tables allow; empty without a response table."""
    table = tables.response
    if table is None:
        return {}
    auc = auc_with_interval(table, noisy=noisy)
    found = {"response_auc": auc}
    precision = float(average_precision(table)) if auc.value is not None else 0.0
    found["response_auprc"] = (
        not_estimable(auc.reason or "")
        if auc.value is None
        else Estimate(float(np.clip(precision, 0.0, 1.0)))
    )
    pairs = tables.counts("response_site_pairs")
    if pairs is not None:
        found["response_auc_within_sites"] = (
            Estimate(float(pairs[0] / pairs[1]))
            if pairs[1] > 0
            else not_estimable("no site has both responders and non-responders")
        )
    sums, bins = tables.sums("response_sums"), tables.sums("response_bin_sums")
    if sums is not None and bins is not None:
        n, counts = float(table.sum()), table.sum(0)
        found["response_brier"] = mean_estimate(float(sums[0, 0]), float(sums[1, 0]), n)
        found["response_nll"] = mean_estimate(float(sums[0, 1]), float(sums[1, 1]), n)
        logit = np.where(counts > 0, bins[1] / np.where(counts > 0, counts, 1), 0.0)
        slope, intercept = recalibration(logit, table[1], table[0])
        found["calibration_slope_response"] = slope
        found["calibration_intercept_response"] = intercept
    return found
