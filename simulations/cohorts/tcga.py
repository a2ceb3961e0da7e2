"""TCGA cohorts by hospital: slide features, RNA, MRI radiomics and clinical columns.

Hospital = tissue source site, characters 6-7 of the barcode. Everything that is fitted
(scaling, principal components) is fitted on public patients outside the cohort - the other
cohorts, and for MRI the imaged patients without genomics: nothing here costs privacy.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.errors import DataError
from common.study import FeatureSpec, PublicScaling
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.public_projection import PublicProjection, fit_projection

GENOMICS = (
    "blca", "brca", "coadread", "gbmlgg", "hnsc", "kirc", "kirp", "lihc", "luad", "paad", "stad",
)  # fmt: skip
PATHOLOGY = ("brca", "luad", "stad")
CLINICAL_COLUMNS = ["age_decades", "female", "stage", "stage_missing"]
DAYS_PER_MONTH = 30.4375
_STAGES = {"I": 1.0, "II": 2.0, "III": 3.0, "IV": 4.0}


def load_tcga(cohort: str, data: Path, *, components: int = 16) -> Cohort:
    """Return the patients of one cohort that have genomics and overall survival.

    Feature sets: `slide` (pathology, where published), `rna` (genomics), `mri` (radiology,
    gbmlgg), each `components` public principal components; `clinical` (age, sex, stage).

    Raises:
        DataError: The cohort is unknown or its files are missing.
    """
    if cohort not in GENOMICS:
        raise DataError(f"unknown TCGA cohort '{cohort}'", cure=f"one of {', '.join(GENOMICS)}")
    folder = data / "tcga"
    genomics = _genomics(folder, cohort)
    labels = _clinical(folder).reindex(genomics.index)
    usable = genomics["survival_months"].gt(0) & genomics["censorship"].notna()
    genomics, labels = genomics[usable], labels[usable]
    specs, features = _feature_sets(folder, cohort, genomics, components)
    clinical = _clinical_columns(genomics, labels)
    specs["clinical"] = FeatureSpec(
        modality="clinical",
        dim=len(CLINICAL_COLUMNS),
        scaling=PublicScaling(clip=3.0, row_norm=3.0),
        names=CLINICAL_COLUMNS,
    )
    features["clinical"] = [row[None] for row in _centred(clinical).astype(np.float32)]
    return Cohort(
        name=f"tcga_{cohort}",
        patient_ids=[str(case) for case in genomics.index],
        hospital=np.array([case[5:7] for case in genomics.index], dtype=np.str_),
        specs=specs,
        features=features,
        response=labels["response_first_course"].to_numpy(dtype=np.float64),
        time_months=genomics["survival_months"].to_numpy(dtype=np.float64),
        event=1.0 - genomics["censorship"].to_numpy(dtype=np.float64),
        clinical=clinical,
        notes=(
            "Hospitals are TCGA tissue source sites; patients are no random sample of them.",
            "Projections are fitted on TCGA patients outside this cohort (public).",
        ),
    )


def breast_regions(data: Path) -> dict[str, str]:
    """Return tissue source site -> region, known for the breast sites."""
    table = _csv(data / "tcga" / "tss_codes.csv")
    known = table[table["Region"].notna()]
    return dict(zip(known["TSS Code"], known["Region"].str.lower(), strict=True))


def _feature_sets(
    folder: Path, cohort: str, genomics: pd.DataFrame, components: int
) -> tuple[dict[str, FeatureSpec], dict[str, list[npt.NDArray[np.float32] | None]]]:
    specs: dict[str, FeatureSpec] = {}
    features: dict[str, list[npt.NDArray[np.float32] | None]] = {}

    def add(name: str, modality: str, table: pd.DataFrame, projection: PublicProjection) -> None:
        projected = projection.apply(table)
        specs[name] = FeatureSpec.model_validate(
            {
                "modality": modality,
                "dim": projected.shape[1],
                "scaling": {"clip": 4.0, "row_norm": 3.0},
            }
        )
        rows = dict(zip(table.index, projected, strict=True))
        features[name] = [None if case not in rows else rows[case][None] for case in genomics.index]

    if cohort in PATHOLOGY:
        others = tuple(other for other in PATHOLOGY if other != cohort)
        projection = _slide_projection(folder, others, components)
        add("slide", "pathology", _slides(folder, cohort), projection)
    others = tuple(other for other in GENOMICS if other != cohort)
    rna = genomics[[c for c in genomics.columns if c.endswith("_rnaseq")]]
    add("rna", "genomics", rna, _rna_projection(folder, others, components))
    if cohort == "gbmlgg":
        mri = pd.concat([_mri(folder, "gbm"), _mri(folder, "lgg")])
        public = mri[~mri.index.isin(genomics.index)]  # imaged, but not patients of this cohort
        add("mri", "radiology", mri, fit_projection([public], components))
    return specs, features


@lru_cache(maxsize=16)
def _slide_projection(folder: Path, others: tuple[str, ...], components: int) -> PublicProjection:
    return fit_projection([_slides(folder, other) for other in others], components)


@lru_cache(maxsize=16)
def _rna_projection(folder: Path, others: tuple[str, ...], components: int) -> PublicProjection:
    tables = []
    for other in others:
        table = _genomics(folder, other)
        tables.append(table[[c for c in table.columns if c.endswith("_rnaseq")]])
    return fit_projection(tables, components)


@lru_cache(maxsize=16)
def _genomics(folder: Path, cohort: str) -> pd.DataFrame:
    table = _parquet(folder / f"genomics_{cohort}.parquet").drop_duplicates("case_id")
    return table.set_index("case_id").sort_index()


@lru_cache(maxsize=4)
def _slides(folder: Path, cohort: str) -> pd.DataFrame:
    table = _parquet(folder / f"pathology_hif_{cohort}.parquet").drop_duplicates("case_id")
    numbers = table.set_index("case_id").sort_index().astype(np.float64)
    return _signed_log(numbers)  # counts and areas are heavily skewed


@lru_cache(maxsize=4)
def _mri(folder: Path, disease: str) -> pd.DataFrame:
    table = _csv(folder / f"mri_radiomics_{disease}.csv.gz").drop_duplicates("case_id")
    numbers = table.set_index("case_id").sort_index().apply(pd.to_numeric, errors="coerce")
    return _signed_log(numbers)


@lru_cache(maxsize=4)
def _clinical(folder: Path) -> pd.DataFrame:
    return _csv(folder / "clinical_cdr.csv.gz").set_index("bcr_patient_barcode")


def _clinical_columns(genomics: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
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


def _centred(clinical: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return public-centred columns: age about 60, sex ±½, stage about II, flag for missing."""
    missing = clinical["stage"].isna()
    columns = [
        clinical["age_decades"].fillna(6.0) - 6.0,
        clinical["female"].fillna(0.5) - 0.5,
        clinical["stage"].fillna(2.0) - 2.0,
        missing.astype(np.float64),
    ]
    return np.stack([column.to_numpy(dtype=np.float64) for column in columns], axis=1)


def _signed_log(table: pd.DataFrame) -> pd.DataFrame:
    values = table.to_numpy(dtype=np.float64)
    logs = np.sign(values) * np.log1p(np.abs(values))
    return pd.DataFrame(logs, index=table.index, columns=table.columns)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise _missing(path) from None


def _csv(path: Path) -> pd.DataFrame:
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
