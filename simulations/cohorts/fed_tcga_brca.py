"""Read Fed-TCGA-BRCA of FLamby (du Terrail et al., 2022): 1,088 patients, six regions, survival."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import DataError
from common.study.study import PublicScaling
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.cohort_columns import CohortColumns, TableFeatures
from simulations.cohorts.cohort_table import read_cohort

AGE_CENTER, AGE_SCALE = 58.0, 13.0
"""Public constants: mean and SD of age at diagnosis of breast cancer, in years, rounded."""


def load_fed_tcga_brca(data: Path, *, standardise_age: bool = True) -> Cohort:
    """Return the 1,088 patients of the published split with their regions as hospitals.

    One feature set `clinical`: raw age in years (or public-standardised) and 38 one-hot columns.

    Raises:
        DataError: The files are missing.
    """
    table, split = read_published(data)
    frame = table.loc[split.index].join(_floor_columns(table.loc[split.index]))
    columns = [column for column in table.columns if column not in {"E", "T"}]
    center, scale = [0.0] * len(columns), [1.0] * len(columns)
    if standardise_age:
        center[0], scale[0] = AGE_CENTER, AGE_SCALE
    row_norm = 3.0 if standardise_age else None
    return read_cohort(
        frame.assign(region="region" + split["fold2"].str.rsplit("_", n=1).str[1]).reset_index(),
        CohortColumns(
            patient="pid",
            hospital="region",
            time="T",
            time_unit="days",
            event="E",
            features={
                "clinical": TableFeatures(
                    modality="clinical",
                    columns=columns,
                    scaling=PublicScaling(center=center, scale=scale, row_norm=row_norm),
                )
            },
            clinical=["age_decades", "stage"],
        ),
        name="fed_tcga_brca",
        notes=("Six regions of TCGA breast; the smallest tests on one event.",),
    )


def published_test_set(data: Path) -> dict[str, bool]:
    """Return patient id -> whether the published split tests on it."""
    _, split = read_published(data)
    return {str(pid): fold == "test" for pid, fold in split["fold"].items()}


def _floor_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return age and stage (I-IV from the one-hot columns; the dropped level counts as I)."""
    stage = pd.Series(1.0, index=table.index)
    for column in table.columns:
        if not column.startswith("ajcc_pathologic_stage_Stage "):
            continue
        roman = column.rsplit(" ", 1)[1].rstrip("ABC")
        level = {"I": 1.0, "II": 2.0, "III": 3.0, "IV": 4.0}.get(roman, np.nan)
        stage[table[column] == 1] = level
    return pd.DataFrame({"age_decades": table["age_at_index"] / 10.0, "stage": stage})


def read_published(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the patients and the published split, both by patient id.

    Raises:
        DataError: A file is missing.
    """
    folder = data / "multicentre_survival"
    try:
        table = pd.read_csv(folder / "fed_tcga_brca.csv").set_index("pid")
        split = pd.read_csv(folder / "fed_tcga_brca_split.csv").set_index("pid")
    except FileNotFoundError as error:
        raise DataError(
            "a file of Fed-TCGA-BRCA is missing",
            where=str(error.filename),
            cure="pass --data with the folder that holds multicentre_survival/",
        ) from None
    return table, split
