"""The federation's own metrics, computed where a simulation holds all predictions."""

from __future__ import annotations

from collections.abc import Mapping

from common.metrics.grid import EvaluationGrid
from common.metrics.predictions import Predictions
from common.metrics.refine import refined
from common.metrics.summary import EvaluationSummary, summarise
from common.metrics.tables import merge
from common.metrics.tabulate import tabulate
from common.privacy.plan import EvaluationRelease
from common.study import Study


def exact_summary(study: Study, by_site: Mapping[str, Predictions]) -> EvaluationSummary:
    """Return what an `internal` two-phase evaluation of these predictions would say.

    Args:
        study: The study; its release mode is replaced by `internal`.
        by_site: Site -> predictions of its held-out patients.
    """
    release = EvaluationRelease(release="internal")
    exact = study.model_copy(
        update={"privacy": study.privacy.model_copy(update={"evaluation": release})}
    )
    first = EvaluationGrid.for_study(exact)
    margins = merge([tabulate(p, first, "margins") for p in by_site.values()])
    grid = refined(first, margins)
    return summarise({site: tabulate(p, grid) for site, p in by_site.items()}, grid)
