"""Score the patients of a TCGA cohort by public trunks fitted on the other cohorts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from simulations.cohorts.public_projection import FloatArray
from simulations.cohorts.public_trunk import PublicPatients, PublicTrunk, fit_trunk
from simulations.cohorts.tcga_tables import (
    centred,
    clinical_columns,
    genomics_table,
    response_labels,
    rna_columns,
    rna_projection,
    slide_projection,
    slide_table,
)

Source = Literal["slide", "rna", "clinical"]
RNA_COMPONENTS, SLIDE_COMPONENTS = 50, 20


def trunk_scores(
    folder: Path, source: Source, others: tuple[str, ...], table: pd.DataFrame
) -> pd.DataFrame:
    """Return what RNA, slides, or age, sex and stage in other cohorts say about patients.

    Args:
        folder: Folder of the TCGA tables.
        source: What is looked at.
        others: Public cohorts that the trunk is fitted on.
        table: The patients: slide features for `slide`, else the genomics table.

    Returns:
        One row per patient, one float32 column per task that could be fitted.
    """
    trunk = _trunk(folder, source, others)
    scores = trunk.apply(_inputs(folder, source, others, table))
    return pd.DataFrame(scores, table.index, list(trunk.tasks))


@lru_cache(maxsize=16)
def _trunk(folder: Path, source: Source, others: tuple[str, ...]) -> PublicTrunk:
    cohorts = {}
    for other in others:
        patients = seen = genomics_table(folder, other)
        if source == "slide":
            slides = slide_table(folder, other)
            patients = patients[patients.index.isin(slides.index)]
            seen = slides.loc[patients.index]
        cohorts[other] = PublicPatients(
            inputs=_inputs(folder, source, others, seen),
            time_months=patients["survival_months"].to_numpy(dtype=np.float64),
            event=1.0 - patients["censorship"].to_numpy(dtype=np.float64),
            response=response_labels(folder, patients.index),
        )
    return fit_trunk(cohorts)


def _inputs(
    folder: Path, source: Source, others: tuple[str, ...], table: pd.DataFrame
) -> FloatArray:
    if source == "clinical":
        return centred(clinical_columns(folder, table))
    if source == "rna":
        inputs = rna_projection(folder, others, RNA_COMPONENTS).apply(rna_columns(table))
    else:
        inputs = slide_projection(folder, others, SLIDE_COMPONENTS).apply(table)
    return inputs.to_numpy(dtype=np.float64)
