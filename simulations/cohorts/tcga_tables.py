"""Read the public tables of TCGA in the data folder, and the projections fitted on them."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import DataError
from simulations.cohorts.public_fits import FloatArray, PublicProjection, fit_projection

GENOMICS = (
    "blca", "brca", "coadread", "gbmlgg", "hnsc", "kirc", "kirp", "lihc", "luad", "paad", "stad",
)  # fmt: skip
PATHOLOGY = ("brca", "luad", "stad")
_STAGES = {"I": 1.0, "II": 2.0, "III": 3.0, "IV": 4.0}


@lru_cache(maxsize=16)
def slide_projection(folder: Path, others: tuple[str, ...], components: int) -> PublicProjection:
    """Return principal components of slide features, fitted on some cohorts."""
    return fit_projection([slide_table(folder, other) for other in others], components)


@lru_cache(maxsize=16)
def rna_projection(folder: Path, others: tuple[str, ...], components: int) -> PublicProjection:
    """Return principal components of RNA, fitted on some cohorts."""
    tables = [rna_columns(genomics_table(folder, other)) for other in others]
    return fit_projection(tables, components)


@lru_cache(maxsize=16)
def genomics_table(folder: Path, cohort: str) -> pd.DataFrame:
    """Return the patients of a cohort that have genomics and overall survival, by case."""
    table = _parquet(folder / f"genomics_{cohort}.parquet").drop_duplicates("case_id")
    table = table.set_index("case_id").sort_index()
    return table[table["survival_months"].gt(0) & table["censorship"].notna()]


def rna_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the RNA columns of a genomics table."""
    return table[[column for column in table.columns if column.endswith("_rnaseq")]]


def response_labels(folder: Path, cases: pd.Index) -> FloatArray:
    """Return (n,) response to the first course, NaN where it was not recorded."""
    labels = clinical_table(folder).reindex(cases)["response_first_course"]
    return labels.to_numpy(dtype=np.float64)


def clinical_columns(folder: Path, genomics: pd.DataFrame) -> pd.DataFrame:
    """Return age in decades, sex (1 = female) and stage (I-IV, or grade 1-4 without stage)."""
    labels = clinical_table(folder).reindex(genomics.index)
    text = labels["ajcc_pathologic_tumor_stage"].astype("string")
    roman = text.str.extract(r"^Stage (IV|III|II|I)", expand=False)
    grade = labels["histological_grade"].astype("string").str.extract(r"^G([1-4])$", expand=False)
    stage = roman.map(_STAGES).fillna(pd.to_numeric(grade.where(roman.isna()), errors="coerce"))
    return pd.DataFrame(
        {
            "age_decades": genomics["age"].astype(np.float64).to_numpy() / 10.0,
            "female": genomics["is_female"].astype(np.float64).to_numpy(),
            "stage": stage.to_numpy(dtype=np.float64, na_value=np.nan),
        }
    )


def centred(clinical: pd.DataFrame) -> FloatArray:
    """Return (n, 4) public-centred columns: age about 60, sex ±½, stage about II, missing."""
    missing = clinical["stage"].isna()
    columns = [
        clinical["age_decades"].fillna(6.0) - 6.0,
        clinical["female"].fillna(0.5) - 0.5,
        clinical["stage"].fillna(2.0) - 2.0,
        missing.astype(np.float64),
    ]
    return np.stack([column.to_numpy(dtype=np.float64) for column in columns], axis=1)


@lru_cache(maxsize=4)
def slide_table(folder: Path, cohort: str) -> pd.DataFrame:
    """Return the slide features of a cohort by case, on a signed log scale."""
    table = _parquet(folder / f"pathology_hif_{cohort}.parquet").drop_duplicates("case_id")
    numbers = table.set_index("case_id").sort_index().astype(np.float64)
    return _signed_log(numbers)  # counts and areas are heavily skewed


@lru_cache(maxsize=4)
def mri_table(folder: Path, disease: str) -> pd.DataFrame:
    """Return the MRI radiomics of gbm or lgg by case, on a signed log scale."""
    table = read_csv(folder / f"mri_radiomics_{disease}.csv.gz").drop_duplicates("case_id")
    numbers = table.set_index("case_id").sort_index().apply(pd.to_numeric, errors="coerce")
    return _signed_log(numbers)


@lru_cache(maxsize=4)
def clinical_table(folder: Path) -> pd.DataFrame:
    """Return the clinical data resource of all tumour types by patient."""
    return read_csv(folder / "clinical_cdr.csv.gz").set_index("bcr_patient_barcode")


def _signed_log(table: pd.DataFrame) -> pd.DataFrame:
    values = table.to_numpy(dtype=np.float64)
    logs = np.sign(values) * np.log1p(np.abs(values))
    return pd.DataFrame(logs, index=table.index, columns=table.columns)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise _missing(path) from None


def read_csv(path: Path) -> pd.DataFrame:
    """Return a table of the data folder.

    Raises:
        DataError: There is no such file.
    """
    try:
        # hospital codes such as 02 and NA are text
        return pd.read_csv(path, low_memory=False, converters={"TSS Code": str})
    except FileNotFoundError:
        raise _missing(path) from None


def _missing(path: Path) -> DataError:
    return DataError(
        "a file of the public cohort is missing",
        where=str(path),
        cure="pass --data with the folder that holds tcga/",
    )
