"""What a perfect model would score on a synthetic consortium.

The simulation knows every patient's true probability of response and true risk. Their AUC and
C-index are below 1 because outcomes are drawn at random; no model can be expected to do better.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from common.errors import DataError
from common.study.study import MODALITIES
from simulations.synthetic.cohort import SiteCohort, attainable
from simulations.synthetic.spec import Signal

FloatArray = npt.NDArray[np.float64]

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
        for index, name in enumerate(MODALITIES):
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
    labelled = table[table["response"].notna()]
    followed = table[table["time_months"].notna() & table["event"].notna()]

    def auc(column: str) -> float | None:
        return response_auc(labelled[column].to_numpy(), labelled["response"].to_numpy())

    def c_index(column: str) -> float | None:
        times, events = followed["time_months"].to_numpy(), followed["event"].to_numpy()
        return harrell_c(followed[column].to_numpy(), times, events)

    return {
        "response_auc": auc("response_probability"),
        "c_index": c_index("risk"),
        "attainable_response_auc": auc("attainable_response_probability"),
        "attainable_c_index": c_index("attainable_risk"),
        "n": len(table),
        "n_response": len(labelled),
        "n_events": int(followed["event"].sum()),
    }


def response_auc(score: FloatArray, response: FloatArray) -> float | None:
    """Return the area under the ROC curve (Mann-Whitney, ties count half), None if one class.

    Args:
        score: (n,) higher = more likely to respond.
        response: (n,) 0/1.
    """
    positive = response == 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if not n_pos or not n_neg:
        return None
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def harrell_c(risk: FloatArray, time_months: FloatArray, event: FloatArray) -> float | None:
    """Return Harrell's C (Harrell et al., 1996), ties in risk count half, None without pairs.

    A pair counts when the earlier time is a death, or at equal times when one alone died.

    Args:
        risk: (n,) higher = worse.
        time_months: (n,) follow-up.
        event: (n,) 1 = died, 0 = censored.
    """
    concordant = comparable = 0.0
    for index in np.flatnonzero(event == 1):
        later = (time_months > time_months[index]) | (
            (time_months == time_months[index]) & (event == 0)
        )
        comparable += int(later.sum())
        concordant += int((risk[later] < risk[index]).sum())
        concordant += 0.5 * int((risk[later] == risk[index]).sum())
    return float(concordant / comparable) if comparable else None
