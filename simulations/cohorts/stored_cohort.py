"""Read simulated hospitals' feature stores as one pooled cohort; simulations only."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from client.data.split import is_held_out, load_or_create_split_key
from common.cohort.features_h5 import feature_path, read_features
from common.cohort.manifest import PatientRow, read_manifest
from common.study.site_policy import SitePolicy
from common.study.study import Study
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.cohort_table import numeric_columns


def read_stored_cohort(study: Study, policies: Mapping[str, SitePolicy]) -> tuple[Cohort, Cohort]:
    """Return (training, held-out) patients of all hospitals together, split as each site does.

    No real consortium can do this; a simulation may, to compare with pooled training.

    Args:
        study: The study.
        policies: Site -> its policy with absolute paths.
    """
    rows: list[tuple[str, PatientRow]] = []
    held_out: list[bool] = []
    for site_id in sorted(policies):
        policy = policies[site_id]
        key = load_or_create_split_key(policy.split_key_file)
        for row in read_manifest(policy.manifest).rows:
            rows.append((site_id, row))
            held_out.append(is_held_out(row.patient_id, key, study.training.test_fraction))
    cohort = _cohort(study, policies, rows)
    usable = np.array([_usable(cohort, study, i) for i in range(len(rows))])
    in_test = np.array(held_out)
    return cohort.take(np.flatnonzero(usable & ~in_test)), cohort.take(
        np.flatnonzero(usable & in_test)
    )


def _cohort(
    study: Study, policies: Mapping[str, SitePolicy], rows: list[tuple[str, PatientRow]]
) -> Cohort:
    features = {}
    for name in study.features:
        paths = [
            feature_path(policies[site].feature_store, name, row.patient_id) for site, row in rows
        ]
        features[name] = [read_features(p).features if p.is_file() else None for p in paths]

    def column(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        values = [getattr(row, name) for _, row in rows]
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)

    return Cohort(
        name=study.study_id,
        patient_ids=[f"{site}/{row.patient_id}" for site, row in rows],
        hospital=np.array([site for site, _ in rows], dtype=np.str_),
        specs=dict(study.features),
        features=features,
        response=column("response"),
        time_months=column("time_months"),
        event=column("event"),
        clinical=numeric_columns(pd.DataFrame([row.clinical for _, row in rows])),
    )


def _usable(cohort: Cohort, study: Study, index: int) -> bool:
    has_outcome = ("response" in study.tasks and np.isfinite(cohort.response[index])) or (
        "survival" in study.tasks and np.isfinite(cohort.time_months[index])
    )
    return bool(has_outcome) and any(
        cohort.features[name][index] is not None for name in study.features
    )
