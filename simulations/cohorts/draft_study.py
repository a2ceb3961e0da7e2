"""Draft a study over the hospitals, features and outcomes of a cohort."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.errors import DataError
from common.study.study import Study, load_study
from simulations.cohorts.cohort import Cohort


def draft_study(cohort: Cohort, **changes: Any) -> Study:
    """Return a study that trains a linear model over all hospitals of a cohort, without privacy.

    It predicts what the cohort records: response if both classes occur, survival if deaths do.

    Args:
        cohort: Gives hospitals, feature sets and outcomes.
        changes: Any key of `study.yaml`; mappings are merged into the default.

    Raises:
        ConfigError: A key is unknown or wrong.
        DataError: No outcome of the cohort can be learnt.

    Example:
        draft_study(cohort, training={"rounds": 40}, privacy={"mode": "local", "epsilon": 8})
    """
    endpoints: dict[str, Any] = {}
    if len(np.unique(cohort.response[np.isfinite(cohort.response)])) == 2:
        endpoints["response"] = {"positive": "responder"}
    if np.nansum(cohort.event) > 0:
        endpoints["survival"] = {}
    if not endpoints and "endpoints" not in changes:
        raise DataError(
            "no outcome of the cohort varies",
            where=f"cohort {cohort.name}",
            why="nobody died, and there are not both responders and non-responders",
            cure="name the outcome columns, or give `endpoints`",
        )
    keys: dict[str, Any] = {
        "study_id": cohort.name,
        "endpoints": endpoints,
        "features": cohort.specs,
        "model": {"name": "linear"},
        "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
        "quorum": {"min_sites": min(2, len(cohort.hospitals))},
        "sites": [{"site_id": hospital} for hospital in cohort.hospitals],
    }
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(keys.get(name), dict)
        keys[name] = {**keys[name], **value} if both else value
    return load_study(keys)
