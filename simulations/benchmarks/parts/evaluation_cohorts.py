"""Predict real cohorts out of fold with simple models, for checking evaluation.

Scores come from a ridge Cox (survival) or a logistic regression (response) on clinical columns,
fitted on the other folds. What is checked is the evaluation of their predictions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from simulations.cohorts.cohort import Cohort, FloatArray
from simulations.cohorts.fed_tcga_brca import load_fed_tcga_brca
from simulations.cohorts.tcga_tables import clinical_columns, genomics_table, response_labels
from simulations.trials.clinical_floor import fit_floor

N_FOLDS, N_RADIOMICS = 5, 20
MONTHS = [0.0, 12.0, 24.0, 36.0, 60.0]


@dataclass(frozen=True)
class ScoredCohort:
    """n patients with out-of-fold predictions of one endpoint.

    Attributes:
        name: Name of the cohort and endpoint.
        patients: Hospitals and outcomes.
        edges: Edges of the hazards in months.
        horizons: Horizons in months that its follow-up reaches.
        hazard_logits: (n, len(edges)) hazard logits, or None.
        response_logit: (n,) logit of response, or None.
    """

    name: str
    patients: Cohort
    edges: list[float]
    horizons: list[float]
    hazard_logits: FloatArray | None = None
    response_logit: FloatArray | None = None


def score_survival(
    name: str, cohort: Cohort, edges: list[float] = MONTHS, horizons: list[float] | None = None
) -> ScoredCohort:
    """Return the patients whose survival is known, with the hazards of a ridge Cox."""
    ends = (*edges[1:], 2 * edges[-1] - edges[-2])
    patients, folds = _known(cohort, cohort.event)
    curve = np.ones((len(patients), 1 + len(edges)))
    for train, test in folds:
        found = fit_floor(patients.take(train), patients.take(test), horizons=ends)
        curve[test, 1:] = np.clip(found.survival, 1e-6, 1 - 1e-6)
    hazard = np.clip(1 - curve[:, 1:] / curve[:, :-1], 1e-6, 1 - 1e-6)
    return ScoredCohort(name, patients, edges, horizons or [12.0, 36.0, 60.0], logit(hazard))


def score_response(name: str, cohort: Cohort) -> ScoredCohort:
    """Return the patients whose response is known, with the logit of a logistic regression."""
    patients, folds = _known(cohort, cohort.response)
    prob = np.zeros(len(patients))
    for train, test in folds:
        prob[test] = fit_floor(patients.take(train), patients.take(test)).response_prob
    return ScoredCohort(name, patients, [0.0, 1.0], [], response_logit=logit(prob))


def _known(
    cohort: Cohort, outcome: FloatArray
) -> tuple[Cohort, list[tuple[np.ndarray[tuple[int]], np.ndarray[tuple[int]]]]]:
    """Return the patients with an outcome, and (training, test) indices of every fold."""
    known = cohort.take(np.flatnonzero(np.isfinite(outcome)))
    fold = np.random.default_rng(11).permutation(len(known)) % N_FOLDS
    return known, [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(N_FOLDS)]


def _cohort(hospital: pd.Series, clinical: pd.DataFrame, **outcomes: pd.Series) -> Cohort:
    """Return patients without features, of numeric clinical columns and the outcomes known."""
    numbers = clinical.apply(pd.to_numeric, errors="coerce").reset_index(drop=True)
    unknown = pd.Series(np.nan, hospital.index)
    response, months, event = (
        outcomes.get(name, unknown).to_numpy(np.float64) for name in ("response", "months", "event")
    )
    ids, sites = [str(number) for number in range(len(numbers))], hospital.astype(str)
    return Cohort("", ids, sites.to_numpy(np.str_), {}, {}, response, months, event, numbers)


def _tcga(data: Path, cohort: str) -> Cohort:
    """Age, sex and stage of a TCGA cohort; hospital = tissue source site."""
    folder = data / "tcga"
    patients = genomics_table(folder, cohort)
    return _cohort(
        patients.index.to_series().str[5:7],
        clinical_columns(folder, patients),
        response=pd.Series(response_labels(folder, patients.index)),
        months=patients["survival_months"],
        event=1.0 - patients["censorship"],
    )


def _institutions(data: Path, file: str, unit_months: float) -> Cohort:
    """A trial with its institutions; `num_` and `fac_` columns are covariates."""
    table = pd.read_csv(data / "multicentre_survival" / file)
    covariates = table.filter(regex="^(num|fac)_").drop(columns="fac_inst")
    months = table["time"] * unit_months
    return _cohort(table["fac_inst"], covariates, months=months, event=table["event"])


def _nsclc_radiomics(data: Path) -> Cohort:
    """CT radiomics of 976 lung cancers at six hospitals; alive at two years."""
    table = pd.read_parquet(data / "nsclc_ct_radiomics" / "features.parquet")
    numbers = table.drop(columns=["site", "id", "surv2yr", "logit_0", "logit_1"])
    numbers = numbers.select_dtypes("number").replace([np.inf, -np.inf], np.nan)
    numbers = numbers.loc[:, numbers.notna().mean() >= 0.95]
    some = numbers.iloc[:, :: len(numbers.columns) // N_RADIOMICS]
    return _cohort(table["site"], some, response=table["surv2yr"])


_SURVIVAL: dict[str, tuple[Callable[[Path], Cohort], list[float], list[float] | None]] = {
    "fed_tcga_brca": (load_fed_tcga_brca, MONTHS, None),
    "tcga_brca": (partial(_tcga, cohort="brca"), MONTHS, None),
    "tcga_luad": (partial(_tcga, cohort="luad"), MONTHS, None),
    "tcga_stad": (partial(_tcga, cohort="stad"), MONTHS, None),
    "ncctg_lung": (
        partial(_institutions, file="ncctg_lung.csv", unit_months=1 / 30.4375),
        [0.0, 3.0, 6.0, 12.0, 18.0],
        [6.0, 12.0, 18.0],
    ),
    "oropharynx_rtog": (
        partial(_institutions, file="oropharynx_rtog.csv", unit_months=12.0),
        [0.0, 6.0, 12.0, 24.0, 36.0],
        [12.0, 24.0, 36.0],
    ),
}
_RESPONSE: dict[str, Callable[[Path], Cohort]] = {
    "nsclc_ct_radiomics": _nsclc_radiomics,
    "tcga_luad_response": partial(_tcga, cohort="luad"),
    "tcga_stad_response": partial(_tcga, cohort="stad"),
}
COHORTS = (*_SURVIVAL, *_RESPONSE)


def load_scored(name: str, data: Path) -> ScoredCohort:
    """Return a cohort of `COHORTS`, scored."""
    if name in _RESPONSE:
        return score_response(name, _RESPONSE[name](data))
    load, edges, horizons = _SURVIVAL[name]
    return score_survival(name, load(data), edges, horizons)
