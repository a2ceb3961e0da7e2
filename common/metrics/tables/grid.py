"""The public grid on which every hospital tabulates its predictions.

Times are cut into intervals (a, b], scores into bins [a, b). Nothing here is estimated from a
patient row: cuts are study constants, or post-processing of released margins (`refined`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.metrics.tables.score_scale import FloatArray, default_cuts
from common.privacy.plan import EvaluationRelease, Release
from common.study.study import Study, SurvivalEndpoint, Task

IntArray = npt.NDArray[np.int64]

LAST_EDGE_MONTHS = 180.0
EVEN_MONTHS = 8.0
"""Intervals are even in log(1 + t / 8): chosen on nine real cohorts, see `evaluation_error`."""
RISK_STEPS = 16
"""Risk sets (deaths and censorings a risk group) cut every interval of the grid in 16."""
LAST_RISK_MONTHS = 480.0
N_BRIER_TIMES = 8


@dataclass(frozen=True)
class GridSize:
    """Numbers of bins of one release mode."""

    times: int
    scores: int
    response: int
    margin: int


SIZES: dict[Release, GridSize] = {
    "internal": GridSize(times=64, scores=64, response=64, margin=4096),
    "dp": GridSize(times=8, scores=8, response=16, margin=32),
}


@dataclass(frozen=True)
class EvaluationGrid:
    """Public cuts shared by all sites.

    Attributes:
        release: `internal` (exact tables) or `dp` (coarse tables with noise).
        size: Numbers of bins.
        tasks: Tasks that are tabulated.
        time_edges: (T + 1,) months, 0 first, inf last; interval j is (edge j, edge j + 1].
        survival_cuts: (S - 1,) increasing cuts of the risk score (log-odds, higher is worse).
        response_cuts: (R - 1,) increasing cuts of the response score (log-odds).
        horizons: (H,) months, every one an inner time edge.
        brier_times: (8,) months at which predicted survival is compared.
        hazard_edges: (K,) left edges of the model's intervals; empty without survival.
        risk_threshold: Risk score from which a patient is in the high-risk group; public (from
            training). None: the median of the merged score margin.
        censoring: (T + 1,) probability of still being under observation at each time edge,
            broadcast in the second phase; None in the first.
        subgroups: Name -> public levels, e.g. {"sex": ("female", "male")}.
        plan: Evaluation budget of the study; says how noisy tables are in release `dp`.
        two_phases: Whether the score cuts come from released margins, which cost part of the plan.
    """

    release: Release
    size: GridSize
    tasks: tuple[Task, ...]
    time_edges: FloatArray
    survival_cuts: FloatArray
    response_cuts: FloatArray
    horizons: FloatArray
    brier_times: FloatArray
    hazard_edges: FloatArray
    risk_threshold: float | None = None
    censoring: FloatArray | None = None
    subgroups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    plan: EvaluationRelease = field(default_factory=EvaluationRelease)
    two_phases: bool = False

    @classmethod
    def for_study(
        cls,
        study: Study,
        *,
        score_cuts: Mapping[Task, Sequence[float]] | None = None,
        censoring: Sequence[float] | None = None,
        risk_threshold: float | None = None,
    ) -> Self:
        """Return the grid of a study.

        Args:
            study: The approved study; its evaluation release decides the size.
            score_cuts: Refined cuts per task from the server's request; defaults otherwise.
            censoring: (T + 1,) censoring curve from the server's request.
            risk_threshold: Public threshold of the high-risk group, on the risk-score scale.

        Raises:
            ConfigError: Cuts have the wrong number, do not increase or are not finite.
        """
        release = study.privacy.evaluation.release
        size = SIZES[release]
        survival = study.endpoints.survival
        horizons = np.unique(np.asarray(survival.horizons_months if survival else [], np.float64))
        edges = time_edges(size.times, horizons, release)
        cuts = dict(score_cuts or {})
        return cls(
            release=release,
            size=size,
            tasks=study.tasks,
            time_edges=edges,
            survival_cuts=_checked_cuts(
                cuts.get("survival"), default_survival_cuts(survival, size.scores), "survival"
            ),
            response_cuts=_checked_cuts(
                cuts.get("response"), default_response_cuts(study, size.response), "response"
            ),
            horizons=horizons,
            brier_times=brier_times(horizons),
            hazard_edges=np.asarray(survival.edges_months if survival else [], np.float64),
            risk_threshold=risk_threshold,
            censoring=_checked_censoring(censoring, len(edges)),
            subgroups=tuple((k, group.names) for k, group in sorted(study.subgroups.items())),
            plan=study.privacy.evaluation,
            two_phases=score_cuts is not None,
        )

    @property
    def n_intervals(self) -> int:
        """Number K of the model's survival intervals."""
        return len(self.hazard_edges)

    @property
    def has_survival(self) -> bool:
        """Whether survival is tabulated."""
        return "survival" in self.tasks

    @property
    def has_response(self) -> bool:
        """Whether response is tabulated."""
        return "response" in self.tasks

    @property
    def risk_edges(self) -> FloatArray:
        """Edges of the risk sets: every interval cut in 16, the open one up to 40 years.

        In release `internal` curves and log-rank need finer times than ranks do; only federation
        totals of two groups are counted on them. Release `dp` has no risk sets.
        """
        edges = self.time_edges[:-1]
        steps = np.arange(0, len(edges) - 1 + 1e-9, 1 / RISK_STEPS)
        inner = np.interp(steps, np.arange(len(edges)), edges)
        last = max(LAST_RISK_MONTHS, 2 * float(edges[-1]))
        tail = np.geomspace(edges[-1], last, 2 * RISK_STEPS + 1)[1:]
        return np.concatenate([inner, tail, [np.inf]])

    def time_index(self, time_months: npt.ArrayLike) -> IntArray:
        """Return the interval (a, b] of each time, int64 in [0, T)."""
        inner = self.time_edges[1:-1]
        return np.searchsorted(inner, np.asarray(time_months, np.float64), side="left")

    def edge_of(self, months: float) -> int:
        """Return the index of the time edge nearest to `months`."""
        return int(np.argmin(np.abs(self.time_edges[:-1] - months)))


def time_edges(n_intervals: int, horizons: FloatArray, release: Release) -> FloatArray:
    """Return (T + 1,) edges: even in log(1 + months / 8), horizons snapped in, inf last.

    Of 64 intervals the first is 0.4 months wide, those at one year 1 month, at five years 3.5
    months: log-spaced, but not wasted on the first days. They end at 15 years (`internal`) or at
    twice the last horizon (`dp`); the last interval is open.

    Raises:
        ConfigError: There are more horizons than inner edges.
    """
    last = LAST_EDGE_MONTHS
    if release == "dp" and len(horizons):
        last = min(last, 2 * float(horizons[-1]))
    last = max(last, float(horizons[-1]) if len(horizons) else 0.0)
    inner = EVEN_MONTHS * np.expm1(np.linspace(0, np.log1p(last / EVEN_MONTHS), n_intervals)[1:])
    if len(horizons) > len(inner):
        raise ConfigError(
            f"{len(horizons)} horizons do not fit into {n_intervals} time intervals",
            where="endpoints.survival.horizons_months",
            why="every horizon is an edge of the evaluation grid",
            cure=f"name at most {len(inner)} horizons",
        )
    free = np.ones(len(inner), bool)
    for months in horizons:
        nearest = int(np.argmin(np.where(free, np.abs(inner - months), np.inf)))
        inner[nearest], free[nearest] = months, False
    return np.concatenate(([0.0], np.sort(inner), [np.inf]))


def brier_times(horizons: FloatArray) -> FloatArray:
    """Return (8,) months: the horizons, filled up evenly to the last one; empty without any."""
    if not len(horizons):
        return np.zeros(0)
    times = list(horizons[-N_BRIER_TIMES:])
    even = np.linspace(0, float(horizons[-1]), N_BRIER_TIMES + 1)[1:]
    gaps = sorted(even, key=lambda t: -min(abs(t - h) for h in horizons))
    times += gaps[: N_BRIER_TIMES - len(times)]
    return np.sort(np.asarray(times, np.float64))


def default_survival_cuts(survival: SurvivalEndpoint | None, n_bins: int) -> FloatArray:
    """Return cuts spread around the published hazards of the study, (n_bins - 1,)."""
    center = 0.0
    if survival is not None and survival.hazards is not None:
        mean = float(np.mean(np.cumprod(1 - np.asarray(survival.hazards))))
        center = float(np.log((1 - mean) / mean)) if 0 < mean < 1 else 0.0
    return default_cuts(n_bins, center, 1.0)


def default_response_cuts(study: Study, n_bins: int) -> FloatArray:
    """Return cuts spread around the published prevalence of the study, (n_bins - 1,)."""
    response = study.endpoints.response
    p = response.prevalence if response and response.prevalence else 0.5
    return default_cuts(n_bins, float(np.log(p / (1 - p))), 1.5)


def _checked_cuts(values: Sequence[float] | None, default: FloatArray, task: str) -> FloatArray:
    if values is None:
        return default
    cuts = np.asarray(values, np.float64)
    if cuts.shape != default.shape or not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
        raise ConfigError(
            f"the score cuts for {task} are not {len(default)} increasing finite numbers",
            where=f"score_cuts.{task}",
            why="all sites must cut scores at the same public places",
            cure="take them from EvaluationGrid.survival_cuts or .response_cuts of the server",
        )
    return cuts


def _checked_censoring(values: Sequence[float] | None, n_edges: int) -> FloatArray | None:
    if values is None:
        return None
    curve = np.asarray(values, np.float64)
    inside = np.isfinite(curve).all() and (curve >= 0).all() and (curve <= 1).all()
    if curve.shape != (n_edges,) or not inside or (np.diff(curve) > 0).any():
        raise ConfigError(
            f"the censoring curve is not {n_edges} falling numbers in [0, 1]",
            where="censoring",
            cure="take it from EvaluationGrid.censoring of the server",
        )
    return curve
