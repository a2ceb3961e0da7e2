"""Predictions for one hospital's patients, with their observed outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from common.errors import DataError
from common.metrics.tables.grid import EvaluationGrid, IntArray
from common.metrics.tables.score_scale import FloatArray
from common.study.study import Task

if TYPE_CHECKING:
    from torch import Tensor

    from common.cohort.batch import Outputs, PatientBatch


@dataclass(frozen=True)
class Predictions:
    """n patients: predicted and observed. NaN marks an outcome that is not known.

    Attributes:
        response_prob: (n,) probability of response; NaN without a response head.
        risk: (n,) -sum_j S_j in [-K, 0], higher is worse; NaN without a survival head.
        survival: (n, 8) predicted S(t) at the grid's `brier_times`.
        survival_at_time: (n,) predicted S at each patient's own follow-up time.
        survival_nll: (n,) discrete-time negative log-likelihood of each patient.
        response: (n,) 1 = responder, 0 = not, NaN = unknown.
        time_months: (n,) follow-up, NaN = unknown.
        event: (n,) 1 = died, 0 = censored, NaN = unknown.
        subgroups: Name -> (n,) int64 index of the grid's level, -1 = in none.
    """

    response_prob: FloatArray
    risk: FloatArray
    survival: FloatArray
    survival_at_time: FloatArray
    survival_nll: FloatArray
    response: FloatArray
    time_months: FloatArray
    event: FloatArray
    subgroups: dict[str, IntArray] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number n of patients."""
        return len(self.response)

    def has(self, task: Task) -> npt.NDArray[np.bool_]:
        """Return (n,) whether the outcome of a task was both predicted and observed."""
        if task == "response":
            return np.isfinite(self.response) & np.isfinite(self.response_prob)
        return np.isfinite(self.time_months) & np.isfinite(self.event) & np.isfinite(self.risk)

    @classmethod
    def from_logits(
        cls,
        grid: EvaluationGrid,
        *,
        response_logit: npt.ArrayLike | None = None,
        hazard_logits: npt.ArrayLike | None = None,
        response: npt.ArrayLike | None = None,
        time_months: npt.ArrayLike | None = None,
        event: npt.ArrayLike | None = None,
        subgroups: dict[str, IntArray] | None = None,
    ) -> Self:
        """Return predictions from a model's logits, in float64.

        Args:
            grid: Public grid; gives the intervals and the times.
            response_logit: (n,) logit of response, or None.
            hazard_logits: (n, K) hazard logits, or None.
            response: (n,) observed response, NaN = unknown.
            time_months: (n,) follow-up, NaN = unknown.
            event: (n,) event, NaN = unknown.
            subgroups: Name -> (n,) level index.

        Raises:
            DataError: Lengths disagree, K is not the study's, or an outcome is impossible.
        """
        arrays = (response_logit, hazard_logits, response, time_months, event)
        n = max((len(np.asarray(value)) for value in arrays if value is not None), default=0)
        times, events = _column(time_months, n, "time_months"), _column(event, n, "event")
        logit = _column(response_logit, n, "response_logit")
        prob = np.where(np.isnan(logit), np.nan, 1 / (1 + np.exp(-np.clip(logit, -700, 700))))
        risk = np.full(n, np.nan)
        curve = np.full((n, len(grid.brier_times)), np.nan)
        own, nll = np.full(n, np.nan), np.full(n, np.nan)
        if hazard_logits is not None:
            log_survival = _log_survival(hazard_logits, n, grid.n_intervals)
            risk = -np.exp(log_survival[:, 1:]).sum(1)
            shared = np.broadcast_to(grid.brier_times, (n, len(grid.brier_times)))
            curve = survival_at_own_times(log_survival, grid.hazard_edges, shared)
            finite = np.where(np.isnan(times), 0.0, times)
            own = survival_at_own_times(log_survival, grid.hazard_edges, finite[:, None])[:, 0]
            nll = _discrete_nll(log_survival, grid.hazard_edges, times, events)
        labels = _column(response, n, "response")
        _check_outcomes(labels, times, events)
        return cls(prob, risk, curve, own, nll, labels, times, events, dict(subgroups or {}))

    @classmethod
    def from_scores(
        cls,
        *,
        response_prob: npt.ArrayLike | None = None,
        risk: npt.ArrayLike | None = None,
        response: npt.ArrayLike | None = None,
        time_months: npt.ArrayLike | None = None,
        event: npt.ArrayLike | None = None,
    ) -> Self:
        """Return predictions that only rank patients, with no curve; what is None is unknown."""
        arrays = (response_prob, risk, response, time_months, event)
        n = max((len(np.asarray(value)) for value in arrays if value is not None), default=0)
        empty = np.full(n, np.nan)
        return cls(
            _column(response_prob, n, "response_prob"),
            _column(risk, n, "risk"),
            np.zeros((n, 0)),
            empty,
            empty,
            _column(response, n, "response"),
            _column(time_months, n, "time_months"),
            _column(event, n, "event"),
        )

    @classmethod
    def from_outputs(cls, outputs: Outputs, batch: PatientBatch, grid: EvaluationGrid) -> Self:
        """Return predictions from a model's outputs; labels not observed become NaN."""
        nobody = np.zeros(len(batch), bool)

        def logits(values: Tensor, task: Task) -> npt.NDArray[np.float32] | None:
            return values.detach().cpu().numpy() if task in grid.tasks else None

        def label(values: Tensor, task: Task) -> FloatArray:
            observed = batch.observed[task].cpu().numpy() if task in batch.observed else nobody
            return np.where(observed, values.cpu().numpy().astype(np.float64), np.nan)

        return cls.from_logits(
            grid,
            response_logit=logits(outputs.response_logit, "response"),
            hazard_logits=logits(outputs.hazard_logits, "survival"),
            response=label(batch.response, "response"),
            time_months=label(batch.time_months, "survival"),
            event=label(batch.event, "survival"),
        )

    @classmethod
    def concatenate(cls, parts: list[Predictions]) -> Predictions:
        """Return the patients of all parts (batches of one site), in order.

        Raises:
            DataError: There is no part.
        """
        if not parts:
            raise DataError("there is no batch of predictions", cure="evaluate at least one batch")
        groups = {
            key: np.concatenate([part.subgroups[key] for part in parts])
            for key in parts[0].subgroups
        }
        return Predictions(
            **{name: np.concatenate([getattr(p, name) for p in parts]) for name in COLUMNS},
            subgroups=groups,
        )

    def select(self, rows: npt.NDArray[np.bool_] | IntArray) -> Predictions:
        """Return some of the patients."""
        return Predictions(
            **{name: getattr(self, name)[rows] for name in COLUMNS},
            subgroups={key: value[rows] for key, value in self.subgroups.items()},
        )


COLUMNS = tuple(column.name for column in fields(Predictions) if column.name != "subgroups")


def survival_at_own_times(
    log_survival: FloatArray, edges: FloatArray, times: FloatArray
) -> FloatArray:
    """Return S(t) with the hazard rate constant inside an interval, (n, H).

    Args:
        log_survival: (n, K + 1) log S at 0 and at the right end of every interval.
        edges: (K,) left edges in months; the open last interval is as wide as the one before.
        times: (n, H) months, each patient's own.
    """
    k = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 1)
    widths = np.append(np.diff(edges), edges[-1] - edges[-2])
    left = np.take_along_axis(log_survival, k, axis=1)
    right = np.take_along_axis(log_survival, k + 1, axis=1)
    share = (times - edges[k]) / widths[k]
    return np.asarray(np.exp(left + (right - left) * share), np.float64)


def _log_survival(hazard_logits: npt.ArrayLike, n: int, n_intervals: int) -> FloatArray:
    logits = np.asarray(hazard_logits, np.float64)
    if logits.shape != (n, n_intervals):
        raise DataError(
            f"hazard logits have shape {logits.shape}, expected {(n, n_intervals)}",
            why="the study's survival edges fix the number of intervals",
        )
    falls = -np.logaddexp(0.0, logits).cumsum(1)
    return np.concatenate([np.zeros((n, 1)), falls], axis=1)


def _discrete_nll(
    log_survival: FloatArray, edges: FloatArray, times: FloatArray, events: FloatArray
) -> FloatArray:
    """Return -log P(death in the interval), or -log S at its right end if censored; (n,)."""
    finite_times = np.nan_to_num(times)[:, None]
    k = np.clip(np.searchsorted(edges, finite_times, side="right") - 1, 0, len(edges) - 1)
    left = np.take_along_axis(log_survival, k, axis=1)[:, 0]
    right = np.take_along_axis(log_survival, k + 1, axis=1)[:, 0]
    with np.errstate(divide="ignore"):
        death = -(left + np.log(-np.expm1(right - left)))
    return np.where(np.isnan(times), np.nan, np.minimum(np.where(events > 0.5, death, -right), 50))


def _column(values: npt.ArrayLike | None, n: int, name: str) -> FloatArray:
    if values is None:
        return np.full(n, np.nan)
    column = np.asarray(values, np.float64)
    if column.shape != (n,):
        raise DataError(f"{name} has shape {column.shape}, expected {(n,)}")
    return column


def _check_outcomes(response: FloatArray, times: FloatArray, events: FloatArray) -> None:
    for name, values in (("response", response), ("event", events)):
        if not np.isin(values[~np.isnan(values)], (0.0, 1.0)).all():
            raise DataError(f"{name} holds a value other than 0 and 1", why="it is a yes or no")
    if (times < 0).any() or np.isinf(times).any():
        raise DataError("time_months holds a negative or infinite follow-up time")
