"""Build a consortium of many small hospitals in memory, to measure the cost of federation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from common.protocol.protocol import AgentApi
from common.study.study import FeatureSpec, PublicScaling, Study
from simulations.cohorts.cohort import Cohort
from simulations.engines.memory_sites import memory_agents

PATIENTS, WIDTH = 64, 64
FEATURES = ("pathology", "genomics", "clinical")


def many_sites_study(n_sites: int, *, rounds: int) -> Study:
    """Return a study without privacy: gradient sums of a linear head on three feature sets."""
    return Study.from_mapping(
        {
            "study_id": f"sites-{n_sites}",
            "synthetic": True,
            "endpoints": {"survival": {}, "response": {"positive": "responds"}},
            "features": {name: _spec(name).model_dump() for name in FEATURES},
            "model": {"name": "linear"},
            "training": {
                "rounds": rounds,
                "nominal_patients": PATIENTS * n_sites,
                "local": {"kind": "gradient_sum"},
                "server": {"name": "adam", "lr": 0.02},
            },
            "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
            "sites": [{"site_id": f"site-{i:03d}"} for i in range(n_sites)],
        },
        where="many_sites_study",
    )


def many_cohorts(study: Study, *, seed: int = 11) -> dict[str, Cohort]:
    """Return 64 patients per site whose outcome follows one direction of their features."""
    rng = np.random.default_rng(seed)
    truth = {name: rng.normal(size=WIDTH) / WIDTH for name in FEATURES}
    return {entry.site_id: _cohort(entry.site_id, truth, rng) for entry in study.sites}


def many_agents(study: Study, folder: Path) -> dict[str, AgentApi]:
    """Return one real site agent per hospital, with its private files below `folder`."""
    return memory_agents(study, many_cohorts(study), folder)


def _spec(name: str) -> FeatureSpec:
    return FeatureSpec.model_validate(
        {"modality": name, "dim": WIDTH, "scaling": PublicScaling(row_norm=3.0)}
    )


def _cohort(site_id: str, truth: Mapping[str, np.ndarray], rng: np.random.Generator) -> Cohort:
    rows = {name: rng.normal(size=(PATIENTS, WIDTH)).astype(np.float32) for name in FEATURES}
    signal = sum((rows[name] @ truth[name] for name in FEATURES), np.zeros(PATIENTS))
    died, left = rng.exponential(24 * np.exp(-signal)), rng.exponential(40, PATIENTS)
    return Cohort(
        name="many_sites",
        patient_ids=[f"{site_id}-{i:03d}" for i in range(PATIENTS)],
        hospital=np.full(PATIENTS, site_id),
        specs={name: _spec(name) for name in FEATURES},
        features={name: [row[None] for row in rows[name]] for name in FEATURES},
        response=(rng.random(PATIENTS) < 1 / (1 + np.exp(-signal))).astype(np.float64),
        time_months=np.minimum(died, left) + 0.1,
        event=(died <= left).astype(np.float64),
        clinical=pd.DataFrame(index=range(PATIENTS)),
    )
