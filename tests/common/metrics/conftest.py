"""Studies, grids and patients for tests of evaluation."""

from collections.abc import Callable

import numpy as np
import pytest

from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.study.study import Study


def _study(
    release: str = "internal",
    tasks: tuple[str, ...] = ("response", "survival"),
    subgroups: dict[str, object] | None = None,
    **evaluation: float,
) -> Study:
    endpoints: dict[str, object] = {}
    if "response" in tasks:
        endpoints["response"] = {"positive": "responder", "prevalence": 0.3}
    if "survival" in tasks:
        endpoints["survival"] = {"hazards": [0.2, 0.2, 0.2, 0.3, 0.3]}
    return Study.from_mapping(
        {
            "study_id": "test",
            "endpoints": endpoints,
            "features": {"x": {"modality": "clinical", "dim": 3}},
            "privacy": {"mode": "none", "evaluation": {"release": release, **evaluation}},
            "subgroups": subgroups or {},
            "sites": [{"site_id": f"site{k}"} for k in range(4)],
        },
        where="test",
    )


def _rows(grid: EvaluationGrid, n: int, seed: int = 0, strength: float = 0.7) -> Predictions:
    """Return n patients whose hazard and response follow the model's own signal."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=n)
    death = rng.exponential(50 * np.exp(-strength * signal))
    leaves = rng.uniform(3, 140, n)
    responds = rng.random(n) < 1 / (1 + np.exp(-signal))
    shape = (n, max(grid.n_intervals, 1))
    return Predictions.from_logits(
        grid,
        response_logit=signal if grid.has_response else None,
        hazard_logits=np.broadcast_to((-1.5 + 0.7 * signal)[:, None], shape)
        if grid.has_survival
        else None,
        response=responds.astype(float) if grid.has_response else None,
        time_months=np.minimum(death, leaves) if grid.has_survival else None,
        event=(death <= leaves).astype(float) if grid.has_survival else None,
    )


@pytest.fixture
def make_study() -> Callable[..., Study]:
    return _study


@pytest.fixture
def make_rows() -> Callable[..., Predictions]:
    return _rows


@pytest.fixture
def grid() -> EvaluationGrid:
    return EvaluationGrid.for_study(_study())
