"""Calibration: slope, intercept, reliability groups, D-calibration.

Slope and intercept are those of a logistic regression of the outcome on the predicted log-odds
(Cox, Biometrika 1958); here every score bin enters with its mean log-odds, so the only loss is
the spread inside a bin. A perfect model has slope 1, intercept 0. For survival the outcome is
death by the horizon, weighted by inverse probability of censoring.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from common.metrics.survival.kaplan_meier import (
    Z95,
    censoring_curve,
    interval_middles,
    survival_at_edges,
    survival_curve,
)
from common.metrics.tables.estimate import MIN_SHOWN, Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray

N_GROUPS = 5
MAX_STEPS = 50
MAX_CONDITION = 1e12
MAX_SLOPE = 30.0


@dataclass(frozen=True)
class ReliabilityGroup:
    """Patients of neighbouring scores: what was predicted and what happened.

    Attributes:
        predicted: Mean predicted probability.
        observed: Observed share (response), or 1 - Kaplan-Meier at the horizon (survival).
        ci_low: Lower limit of the 95 % interval of `observed` (Wilson; Greenwood for survival).
        ci_high: Upper limit.
        n_patients: Patients of the group, at least 5.
    """

    predicted: float
    observed: float
    ci_low: float
    ci_high: float
    n_patients: int


@dataclass(frozen=True)
class Reliability:
    """Calibration of one outcome.

    Attributes:
        title: The outcome, for people.
        groups: Lowest predicted probability first.
    """

    title: str
    groups: list[ReliabilityGroup]


def recalibration(
    logit: FloatArray, positive: FloatArray, negative: FloatArray
) -> tuple[Estimate, Estimate]:
    """Return (slope, intercept) with 95 % Wald intervals.

    Args:
        logit: (R,) mean predicted log-odds of each bin.
        positive: (R,) (weighted) patients with the outcome.
        negative: (R,) (weighted) patients without it.
    """
    n = positive + negative
    if positive.sum() <= 0 or negative.sum() <= 0:
        refusal = not_estimable("only one outcome occurs")
        return refusal, refusal
    if np.ptp(logit[n > 0]) < 1e-9:
        refusal = not_estimable("all predictions are equal")
        return refusal, refusal
    design = np.column_stack([np.ones_like(logit), logit])
    beta = np.array([0.0, 1.0])
    for _ in range(MAX_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        information = design.T @ (design * (n * p * (1 - p))[:, None])
        if np.linalg.cond(information) > MAX_CONDITION or np.abs(beta).max() > MAX_SLOPE:
            refusal = not_estimable("the outcomes are separated by the score")
            return refusal, refusal
        step = np.linalg.solve(information, design.T @ (positive - n * p))
        beta = beta + np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-10:
            break
    sd = np.sqrt(np.diag(np.linalg.inv(information)))
    intercept, slope = (
        Estimate(float(b), ci_low=float(b - Z95 * s), ci_high=float(b + Z95 * s))
        for b, s in zip(beta, sd, strict=True)
    )
    return slope, intercept


def weighted_outcomes(table: FloatArray, edge: int) -> tuple[FloatArray, FloatArray]:
    """Return (died, alive) per score bin at a time edge, weighted by 1 / G, (S,) each."""
    died, censored = table[1].sum(-1), table[0].sum(-1)
    curve = censoring_curve(died, censored)
    with np.errstate(divide="ignore"):
        inverse = np.where(curve > 0, 1 / curve, 0.0)
        middle = interval_middles(curve)
        at_death = np.where(middle > 0, 1 / middle, 0.0)
    dead = (table[1, :edge] * at_death[:edge, None]).sum(0)
    alive = table[:, edge:].sum((0, 1)) * inverse[edge]
    return np.asarray(dead), np.asarray(alive)


def score_groups(counts: FloatArray, n_groups: int = N_GROUPS) -> list[slice]:
    """Return neighbouring bins in about equal groups of at least 5 patients each."""
    if counts.sum() < MIN_SHOWN:
        return []
    size = max(float(MIN_SHOWN), counts.sum() / n_groups)
    groups, start, n_group = [], 0, 0.0
    for index, count in enumerate(counts):
        n_group += count
        if n_group >= size and counts[index + 1 :].sum() >= MIN_SHOWN:
            groups.append(slice(start, index + 1))
            start, n_group = index + 1, 0.0
    groups.append(slice(start, len(counts)))
    return groups


def response_reliability(table: FloatArray, probability: FloatArray) -> list[ReliabilityGroup]:
    """Return groups from [label, score] counts (2, R) and sums of predicted probability (R,)."""
    groups = []
    for part in score_groups(table.sum(0)):
        n, yes = float(table[:, part].sum()), float(table[1, part].sum())
        low, high = _wilson(yes, n)
        predicted = float(probability[part].sum()) / n
        groups.append(ReliabilityGroup(predicted, yes / n, low, high, round(n)))
    return groups


def survival_reliability(
    table: FloatArray, survival: FloatArray, edge: int, edges: FloatArray
) -> list[ReliabilityGroup]:
    """Return groups by risk: mean predicted against observed probability of death by an edge.

    Args:
        table: (2, T, S) counts.
        survival: (S,) sums of predicted S at the edge.
        edge: Index of the time edge.
        edges: (T + 1,) time edges.
    """
    groups = []
    for part in score_groups(table.sum((0, 1))):
        counts = table[..., part].sum(-1)
        n = float(counts.sum())
        curve = survival_curve("", counts[1], counts[0], edges)
        alive, low, high = (
            float(values[edge - 1]) for values in (curve.survival, curve.ci_low, curve.ci_high)
        )
        predicted = 1 - float(survival[part].sum()) / n
        groups.append(ReliabilityGroup(predicted, 1 - alive, 1 - high, 1 - low, round(n)))
    return groups


def observed_to_expected(table: FloatArray, survival: FloatArray, edge: int) -> Estimate:
    """Return (1 - Kaplan-Meier) / mean predicted probability of death at an edge."""
    expected = 1 - float(survival.sum()) / float(table.sum())
    counts = table.sum(-1)
    alive = float(survival_at_edges(counts[1], counts[0], 0.5)[edge - 1])
    if expected <= 0:
        return not_estimable("no death is predicted")
    return Estimate((1 - alive) / expected)


def d_calibration(tenths: FloatArray) -> Estimate:
    """Return the p value of D-calibration: chi-square of S_i(T_i) against uniform tenths."""
    expected = float(tenths.sum()) / len(tenths)
    if expected * len(tenths) < MIN_SHOWN:
        return not_estimable("fewer than 5 patients")
    statistic = float((np.square(tenths - expected) / expected).sum())
    return Estimate(float(chi2.sf(statistic, len(tenths) - 1)))


def _wilson(yes: float, n: float) -> tuple[float, float]:
    share, z2 = yes / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return float(centre - half), float(centre + half)
