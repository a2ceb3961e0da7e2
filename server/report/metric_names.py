"""Names of metrics for readers, and the order in which a report groups them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from common.metrics.tables.estimate import Estimate

HEADLINE_TITLES = {"response_auc": "Response, ROC AUC", "c_index": "Survival, Harrell's C"}

_NAMES = {
    "response_auc": "ROC AUC",
    "response_auc_within_sites": "ROC AUC within hospitals",
    "response_auprc": "average precision (area under precision-recall)",
    "response_brier": "Brier score",
    "response_nll": "log-loss",
    "calibration_slope_response": "calibration slope (1 is perfect)",
    "calibration_intercept_response": "calibration intercept (0 is perfect)",
    "c_index": "Harrell's C",
    "c_index_within_sites": "Harrell's C within hospitals",
    "uno_c": "Uno's C",
    "iauc": "mean AUC over time",
    "log_rank_chi2": "log-rank of the risk groups, chi-square",
    "log_rank_p": "log-rank of the risk groups, p",
    "log_rank_stratified_chi2": "log-rank stratified by hospital, chi-square",
    "log_rank_stratified_p": "log-rank stratified by hospital, p",
    "rmst": "restricted mean survival, months",
    "rmst_low_risk": "restricted mean survival of the low-risk group, months",
    "rmst_high_risk": "restricted mean survival of the high-risk group, months",
    "survival_nll": "log-loss of the discrete-time model",
    "ibs": "integrated Brier score",
    "d_calibration_p": "D-calibration, p (small = miscalibrated)",
}
_AT_HORIZON = {
    "auc": "AUC at {} months",
    "brier": "Brier score at {} months",
    "brier_explained": "Brier score explained at {} months (0 = Kaplan-Meier)",
    "calibration_slope": "calibration slope at {} months (1 is perfect)",
    "calibration_intercept": "calibration intercept at {} months (0 is perfect)",
    "oe": "observed over expected deaths at {} months",
}
_HORIZON = re.compile(r"^(?P<name>.+)_(?P<months>[0-9.]+)m$")


def metric_title(name: str) -> str:
    """Return a metric's name for readers.

    >>> metric_title("auc_12m")
    'AUC at 12 months'
    """
    found = _HORIZON.match(name)
    if found and found["name"] in _AT_HORIZON:
        return _AT_HORIZON[found["name"]].format(found["months"])
    return _NAMES.get(name, name.replace("_", " "))


def grouped(metrics: Mapping[str, Estimate]) -> dict[str, dict[str, Estimate]]:
    """Return metrics under the headings `Response` and `Survival`, those without any left out."""
    groups: dict[str, dict[str, Estimate]] = {"Response": {}, "Survival": {}}
    for name, estimate in metrics.items():
        groups["Response" if "response" in name else "Survival"][metric_title(name)] = estimate
    return {heading: found for heading, found in groups.items() if found}
