"""Real cohorts with cross-fitted predictions of simple models, for checking evaluation.

Scores come from a ridge Cox (survival) or a logistic regression (response), fitted on the other
folds. The models are a means: what is checked is the evaluation of their predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.metrics.tables.score_scale import FloatArray

DAYS_PER_MONTH = 30.4375
N_FOLDS = 5
_STAGES = {"IV": 4.0, "III": 3.0, "II": 2.0, "I": 1.0}


@dataclass(frozen=True)
class ScoredCohort:
    """One cohort with out-of-fold predictions; NaN outcomes where a task is absent.

    Attributes:
        name: Name of the cohort.
        site: (n,) hospital of each patient.
        horizons: Horizons in months that its follow-up reaches.
        hazard_logits: (n, 5) out-of-fold hazard logits on `EDGES`, or None.
        response_logit: (n,) out-of-fold logit of response, or None.
        time_months: (n,) follow-up.
        event: (n,) 1 = died.
        response: (n,) 1 = responder.
    """

    name: str
    site: npt.NDArray[np.str_]
    edges: list[float]
    horizons: list[float]
    hazard_logits: FloatArray | None = None
    response_logit: FloatArray | None = None
    time_months: FloatArray | None = None
    event: FloatArray | None = None
    response: FloatArray | None = None


def fed_tcga_brca(data: Path) -> ScoredCohort:
    """Fed-TCGA-BRCA: 1,088 patients, 39 clinical features, six regions."""
    folder = data / "multicentre_survival"
    table = pd.read_csv(folder / "fed_tcga_brca.csv")
    table = table[table["pid"].isin(pd.read_csv(folder / "fed_tcga_brca_split.csv")["pid"])]
    centers = pd.read_csv(folder / "fed_tcga_brca_centers.csv", keep_default_na=False)
    region = dict(zip(centers["TSS Code"].astype(str), centers["Region"], strict=True))
    site = table["pid"].str[5:7].map(region).fillna("other").to_numpy(np.str_)
    features = table.drop(columns=["pid", "E", "T"]).to_numpy(np.float64)
    months = table["T"].to_numpy(np.float64) / DAYS_PER_MONTH
    return _survival_cohort("fed_tcga_brca", features, months, table["E"].to_numpy(float), site)


def tcga_survival(data: Path, cohort: str) -> ScoredCohort:
    """A TCGA cohort with age, sex and stage; hospital = tissue source site."""
    table = _clinical(data, cohort)
    table = table[table["OS.time"].gt(0) & table["OS"].notna()]
    return _survival_cohort(
        f"tcga_{cohort}",
        _age_sex_stage(table),
        table["OS.time"].to_numpy(np.float64) / DAYS_PER_MONTH,
        table["OS"].to_numpy(np.float64),
        table["tss"].astype(str).to_numpy(np.str_),
    )


def tcga_response(data: Path, cohort: str) -> ScoredCohort:
    """Response to the first treatment course of a TCGA cohort, from age, sex and stage."""
    table = _clinical(data, cohort)
    table = table[table["response_first_course"].notna()]
    return _response_cohort(
        f"tcga_{cohort}_response",
        _age_sex_stage(table),
        table["response_first_course"].to_numpy(np.float64),
        table["tss"].astype(str).to_numpy(np.str_),
    )


def ncctg_lung(data: Path) -> ScoredCohort:
    """NCCTG lung cancer: 228 patients, 18 institutions."""
    table = pd.read_csv(data / "multicentre_survival" / "ncctg_lung.csv")
    columns = ["num_age", "fac_ph_ecog", "fac_sex", "num_wt_loss", "num_ph_karno"]
    months = table["time"].to_numpy(np.float64) / DAYS_PER_MONTH
    return _survival_cohort(
        "ncctg_lung",
        _imputed(table[columns]),
        months,
        table["event"].to_numpy(np.float64),
        table["fac_inst"].astype(str).to_numpy(np.str_),
        edges=[0.0, 3.0, 6.0, 12.0, 18.0],
        horizons=[6.0, 12.0, 18.0],
    )


def oropharynx(data: Path) -> ScoredCohort:
    """RTOG oropharynx trial: 192 patients, six institutions."""
    table = pd.read_csv(data / "multicentre_survival" / "oropharynx_rtog.csv")
    columns = ["fac_sex", "fac_treatm", "num_age", "num_cond", "num_tstage", "num_nstage"]
    months = table["time"].to_numpy(np.float64) * 12.0  # the table is in years
    return _survival_cohort(
        "oropharynx_rtog",
        _imputed(table[columns]),
        months,
        table["event"].to_numpy(np.float64),
        table["fac_inst"].astype(str).to_numpy(np.str_),
        edges=[0.0, 6.0, 12.0, 24.0, 36.0],
        horizons=[12.0, 24.0, 36.0],
    )


def nsclc_radiomics(data: Path) -> ScoredCohort:
    """CT radiomics of 976 lung cancers at six hospitals; alive at two years."""
    table = pd.read_parquet(data / "nsclc_ct_radiomics" / "features.parquet")
    numbers = table.drop(columns=["site", "id", "surv2yr", "logit_0", "logit_1"])
    numbers = numbers.select_dtypes("number").replace([np.inf, -np.inf], np.nan)
    numbers = numbers.loc[:, numbers.notna().mean() >= 0.95]
    return _response_cohort(
        "nsclc_ct_radiomics",
        _principal_components(_imputed(numbers), 20),
        table["surv2yr"].to_numpy(np.float64),
        table["site"].astype(str).to_numpy(np.str_),
    )


def _clinical(data: Path, cohort: str) -> pd.DataFrame:
    table = pd.read_csv(data / "tcga" / "clinical_cdr.csv.gz", low_memory=False)
    return table[table["type"] == cohort.upper()]


def _age_sex_stage(table: pd.DataFrame) -> FloatArray:
    stage_name = next(c for c in table.columns if "stage" in c)
    age_name = next(c for c in table.columns if "age_at" in c or c == "age")
    text = table[stage_name].astype(str).str.upper().str.extract(r"STAGE\s+(IV|III|II|I)")[0]
    stage = text.map(_STAGES)
    columns = pd.DataFrame(
        {
            "age": pd.to_numeric(table[age_name], errors="coerce"),
            "female": (table["gender"].astype(str).str.upper() == "FEMALE").astype(float),
            "stage": stage,
            "stage_missing": stage.isna().astype(float),
        }
    )
    return _imputed(columns)


def _imputed(columns: pd.DataFrame) -> FloatArray:
    filled = columns.apply(pd.to_numeric, errors="coerce").astype(float)
    filled = filled.fillna(filled.median())
    values = filled.to_numpy(np.float64)
    spread = values.std(0)
    return np.asarray((values - values.mean(0)) / np.where(spread > 0, spread, 1.0), np.float64)


def _principal_components(values: FloatArray, n: int) -> FloatArray:
    centred = np.clip(values, -10, 10)
    left, strength, _ = np.linalg.svd(centred - centred.mean(0), full_matrices=False)
    scores = left[:, :n] * strength[:n]
    return np.asarray(scores / scores.std(0), np.float64)


def _folds(n: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(11).permutation(n) % N_FOLDS


def _survival_cohort(
    name: str,
    features: FloatArray,
    months: FloatArray,
    event: FloatArray,
    site: npt.NDArray[np.str_],
    *,
    edges: list[float] | None = None,
    horizons: list[float] | None = None,
) -> ScoredCohort:
    edges = edges or [0.0, 12.0, 24.0, 36.0, 60.0]
    right_ends = [*edges[1:], 2 * edges[-1] - edges[-2]]
    fold, logits = _folds(len(months)), np.zeros((len(months), len(edges)))
    for k in range(N_FOLDS):
        train, test = fold != k, fold == k
        survival = _cox_survival(features[train], months[train], event[train], features[test])
        curve = np.clip(survival(np.array(right_ends)), 1e-6, 1 - 1e-6)
        previous = np.hstack([np.ones((test.sum(), 1)), curve[:, :-1]])
        hazard = np.clip(1 - curve / previous, 1e-6, 1 - 1e-6)
        logits[test] = np.log(hazard / (1 - hazard))
    return ScoredCohort(
        name,
        site,
        edges,
        horizons or [12.0, 36.0, 60.0],
        hazard_logits=logits,
        time_months=months,
        event=event,
    )


def _cox_survival(
    features: FloatArray, months: FloatArray, event: FloatArray, new: FloatArray
) -> Callable[[FloatArray], FloatArray]:
    from lifelines import CoxPHFitter

    names = [f"x{i}" for i in range(features.shape[1]) if features[:, i].std() > 0]
    keep = [int(name[1:]) for name in names]
    frame = pd.DataFrame(features[:, keep], columns=names).assign(T=months, E=event)
    model = CoxPHFitter(penalizer=0.1).fit(frame, "T", "E")
    test = pd.DataFrame(new[:, keep], columns=names)
    return lambda times: np.asarray(
        model.predict_survival_function(test, times=times).to_numpy().T, np.float64
    )


def _response_cohort(
    name: str, features: FloatArray, response: FloatArray, site: npt.NDArray[np.str_]
) -> ScoredCohort:
    from sklearn.linear_model import LogisticRegression

    fold, logit = _folds(len(response)), np.zeros(len(response))
    for k in range(N_FOLDS):
        model = LogisticRegression(max_iter=2000).fit(features[fold != k], response[fold != k])
        logit[fold == k] = model.decision_function(features[fold == k])
    return ScoredCohort(name, site, [0.0, 1.0], [], response_logit=logit, response=response)


COHORTS: dict[str, Callable[[Path], ScoredCohort]] = {
    "fed_tcga_brca": fed_tcga_brca,
    "tcga_brca": partial(tcga_survival, cohort="brca"),
    "tcga_luad": partial(tcga_survival, cohort="luad"),
    "tcga_stad": partial(tcga_survival, cohort="stad"),
    "ncctg_lung": ncctg_lung,
    "oropharynx_rtog": oropharynx,
    "nsclc_ct_radiomics": nsclc_radiomics,
    "tcga_luad_response": partial(tcga_response, cohort="luad"),
    "tcga_stad_response": partial(tcga_response, cohort="stad"),
}
"""Name -> loader."""
