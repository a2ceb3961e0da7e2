"""Score a perfect model on a synthetic consortium.

The simulation knows every patient's true probability of response and true risk. Their AUC and
C-index are below 1 because outcomes are drawn at random; no model can be expected to do better.
"""

import math
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from common.errors import DataError
from simulations.comparison.arm_metrics import arm_scores
from simulations.synthetic.cohort import SiteCohort, attainable
from simulations.synthetic.spec import FACTORS, Signal

TRUTH_FILE = Path("truth") / "truth.parquet"


def truth_table(cohorts: Collection[SiteCohort], signal: Signal) -> pd.DataFrame:
    """Return one row per patient: factors, true scores, attainable scores, recorded outcomes."""
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
    """Return the headline metrics of the true scores on recorded outcomes.

    Args:
        truth: The truth table, or the folder of the consortium.
        patient_ids: Only these patients, e.g. the held-out ones; all when None.

    Returns:
        Every headline metric (knowing all four factors), and after `attainable_` again (knowing
        the factors of the modalities each patient has), None where not estimable; `n`,
        `n_response`, `n_events`.
    """
    table = read_truth(truth) if isinstance(truth, Path) else truth
    if patient_ids is not None:
        table = table[table["patient_id"].isin(set(patient_ids))]
    metrics: dict[str, float | int | None] = {}
    for prefix in ("", "attainable_"):
        risk, prob = table[f"{prefix}risk"], table[f"{prefix}response_probability"]
        for name, value in arm_scores(table.assign(risk=risk, response_prob=prob)).items():
            metrics[prefix + name] = value if math.isfinite(value) else None
    metrics["n"] = len(table)
    metrics["n_response"] = int(table["response"].notna().sum())
    metrics["n_events"] = int(table["event"][table["time_months"].notna()].sum())
    return metrics
