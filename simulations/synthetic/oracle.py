"""Score a perfect model on a synthetic consortium.

The simulation knows every patient's true probability of response and true risk. Their AUC and
C-index are below 1 because outcomes are drawn at random; no model can be expected to do better.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from common.errors import DataError
from simulations.comparison.comparison import concordance, response_auc
from simulations.synthetic.cohort import SiteCohort, attainable
from simulations.synthetic.spec import FACTORS, Signal

TRUTH_FILE = Path("truth") / "truth.parquet"


def truth_table(cohorts: Collection[SiteCohort], signal: Signal) -> pd.DataFrame:
    """Return one row a patient: factors, true scores, attainable scores, recorded outcomes."""
    frames = []
    for cohort in cohorts:
        probability, risk = attainable(signal, cohort.latent, cohort.present)
        columns: dict[str, object] = {
            "site_id": cohort.site.site_id,
            "patient_id": cohort.patient_ids,
        }
        for index, name in enumerate(FACTORS):
            columns[f"z_{name}"] = cohort.latent[:, index]
            columns[f"has_{name}"] = cohort.present[:, index]
        columns |= {
            "response_probability": cohort.response_probability,
            "risk": cohort.risk,
            "attainable_response_probability": probability,
            "attainable_risk": risk,
            "response": cohort.response,
            "time_months": cohort.time_months,
            "event": cohort.event,
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def read_truth(folder: Path) -> pd.DataFrame:
    """Return the truth table of a consortium written to `folder`.

    Raises:
        DataError: The folder holds no synthetic consortium.
    """
    path = folder / TRUTH_FILE
    if not path.is_file():
        raise DataError(
            "the truth of the synthetic consortium is missing",
            where=str(path),
            why="only a synthetic consortium knows the true risks",
            cure="write the consortium again, or leave the oracle out",
        )
    return pd.read_parquet(path)


def oracle_metrics(
    truth: pd.DataFrame | Path, patient_ids: Collection[str] | None = None
) -> dict[str, float | int | None]:
    """Return AUC and Harrell C of the true scores on recorded outcomes.

    Args:
        truth: The truth table, or the folder of the consortium.
        patient_ids: Only these patients, e.g. the held-out ones; all when None.

    Returns:
        `response_auc`, `c_index` (knowing all four factors), `attainable_response_auc`,
        `attainable_c_index` (knowing the factors of the modalities each patient has), None
        where not estimable; `n`, `n_response`, `n_events`.
    """
    table = read_truth(truth) if isinstance(truth, Path) else truth
    if patient_ids is not None:
        table = table[table["patient_id"].isin(set(patient_ids))]
    known = table["time_months"].notna()

    def auc(column: str) -> float | None:
        return _or_none(response_auc(table.assign(response_prob=table[column])))

    def c_index(column: str) -> float | None:
        return _or_none(concordance(table.assign(risk=table[column])))

    return {
        "response_auc": auc("response_probability"),
        "c_index": c_index("risk"),
        "attainable_response_auc": auc("attainable_response_probability"),
        "attainable_c_index": c_index("attainable_risk"),
        "n": len(table),
        "n_response": int(table["response"].notna().sum()),
        "n_events": int(table["event"][known].sum()),
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
