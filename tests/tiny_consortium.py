"""The smallest consortium: three hospitals of random vectors, made in memory in milliseconds.

For tests, for trying a change, for showing how the pieces fit. Nothing here resembles medicine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from client.agent.site_agent import SiteAgent
from client.data.dataset import PatientDataset
from common.study.site_policy import Approval, SitePolicy
from common.study.study import Study

DIMS = {"pathology": 6, "radiology": 4, "clinical": 3}


def tiny_study(**changes: Any) -> Study:
    """Return a study of three sites, three modalities and both endpoints.

    Args:
        changes: Sections that replace the defaults: `training`, `privacy`, `model`, `quorum`,
            `sites` or any other key of `study.yaml`. Mappings are merged into the default.
    """
    keys: dict[str, Any] = {
        "study_id": "tiny",
        "synthetic": True,
        "endpoints": {
            "response": {"positive": "responds", "prevalence": 0.4},
            "survival": {"edges_months": [0, 12, 24, 36], "horizons_months": [12, 24]},
        },
        "features": {
            name: {"modality": name, "dim": dim, "scaling": {"row_norm": 3.0}}
            for name, dim in DIMS.items()
        },
        "model": {"name": "linear"},
        "training": {
            "rounds": 4,
            "nominal_patients": 90,
            "server": {"name": "sgd", "lr": 0.5, "beta1": 0.0},
        },
        "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
        "quorum": {"min_sites": 2, "round_timeout_s": 60},
        "sites": [{"site_id": f"site-{letter}"} for letter in "abc"],
    }
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(keys.get(name), dict)
        keys[name] = {**keys[name], **value} if both else value
    return Study.from_mapping(keys, where="tiny_study")


def tiny_datasets(study: Study, *, n: int = 30, seed: int = 1) -> dict[str, PatientDataset]:
    """Return n patients a site; the last site has no radiology at all.

    Outcomes follow one random direction of the joint features; a tenth of the labels is missing.
    """
    rng = np.random.default_rng(seed)
    truth = {name: rng.normal(size=dim) for name, dim in DIMS.items()}
    sites = [entry.site_id for entry in study.sites]
    return {
        site_id: _dataset(study, site_id, n, truth, rng, radiology=site_id != sites[-1])
        for site_id in sites
    }


def tiny_policy(study: Study, site_id: str, folder: Path, **changes: Any) -> SitePolicy:
    """Return the policy of a site that approved the study and allows all it asks for."""
    allowed: dict[str, Any] = {
        "site_id": site_id,
        "device": "cpu",
        "approvals": [
            Approval(
                study_digest=study.digest(), epsilon_ceiling=100, evaluation_epsilon_ceiling=100
            )
        ],
        "minimum_cohort": 5,
        "lifetime_epsilon": 100.0,
        "lifetime_evaluation_epsilon": 100.0,
        "allowed_modes": ["none", "local", "distributed"],
        "allow_internal_evaluation": True,
    }
    return SitePolicy.model_validate(allowed | changes).resolved(folder / site_id)


def tiny_agents(
    study: Study, folder: Path, *, datasets: Mapping[str, PatientDataset] | None = None
) -> dict[str, SiteAgent]:
    """Return one agent per site, with its private files below `folder`.

    Every site declares the modalities that its patients have.
    """
    agents = {}
    for site_id, data in (datasets or tiny_datasets(study)).items():
        policy = tiny_policy(study, site_id, folder, modalities=list(data.modalities))
        agents[site_id] = SiteAgent(policy, InMemory(data))
    return agents


class InMemory:
    """Provider of one dataset that lies in memory."""

    def __init__(self, dataset: PatientDataset) -> None:
        self._dataset = dataset

    def __call__(self, study: Study) -> PatientDataset:
        """Return the dataset, whatever the study."""
        return self._dataset


def _dataset(
    study: Study,
    site_id: str,
    n: int,
    truth: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]],
    rng: np.random.Generator,
    *,
    radiology: bool,
) -> PatientDataset:
    bags: dict[str, list[np.ndarray[Any, Any] | None]] = {name: [] for name in DIMS}
    signal = np.zeros(n)
    for i in range(n):
        for name, dim in DIMS.items():
            here = name != "radiology" or (radiology and rng.random() < 0.7)
            vector = rng.normal(size=dim)
            bags[name].append(vector.astype(np.float32) if here else None)
            signal[i] += float(vector @ truth[name]) / 3 if here else 0.0
    time = rng.exponential(24 * np.exp(-0.5 * signal))
    censored = rng.exponential(40, size=n)
    response = (rng.random(n) < 1 / (1 + np.exp(-signal))).astype(float)
    response[rng.random(n) < 0.1] = np.nan
    return PatientDataset.from_arrays(
        study,
        [f"{site_id}-patient-{i:03d}" for i in range(n)],
        bags,
        response,
        np.minimum(time, censored) + 0.1,
        (time <= censored).astype(float),
    )
