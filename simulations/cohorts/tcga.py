"""Read TCGA cohorts by hospital: slide features, RNA, MRI radiomics and clinical columns.

Hospital = tissue source site, characters 6-7 of the barcode. Everything that is fitted
(scaling, principal components, the public trunk) is fitted on public patients outside the
cohort - the other cohorts, and for MRI the imaged patients without genomics: nothing here costs
privacy.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.errors import DataError
from common.study.modalities import Modality
from common.study.study import FeatureSpec, PublicScaling
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.public_fits import (
    FloatArray,
    PublicPatients,
    PublicTrunk,
    fit_projection,
    fit_trunk,
)
from simulations.cohorts.tcga_tables import (
    GENOMICS,
    PATHOLOGY,
    centred,
    clinical_columns,
    genomics_table,
    mri_table,
    read_csv,
    response_labels,
    rna_columns,
    rna_projection,
    slide_projection,
    slide_table,
)

Source = Literal["slide", "rna", "clinical"]
FeatureSet = tuple[FeatureSpec, pd.DataFrame]
"""A feature set and one row per patient who has it."""

RNA_COMPONENTS, SLIDE_COMPONENTS = 50, 20
"""What a trunk reads of RNA and of slides."""

CLINICAL_COLUMNS = ["age_decades", "female", "stage", "stage_missing"]
_COMPONENT_SCALING = PublicScaling(clip=4.0, row_norm=3.0)
_SCORE_SCALING = PublicScaling(clip=3.0, row_norm=3.0)


def load_tcga(cohort: str, data: Path, *, components: int = 16, trunk: bool = False) -> Cohort:
    """Return the patients of one cohort that have genomics and overall survival.

    Feature sets: `slide` (pathology, where published), `rna` (genomics), `mri` (radiology,
    gbmlgg), each `components` public principal components; `clinical` (age, sex, stage). With
    `trunk` also `slide_trunk`, `rna_trunk` and `clinical_trunk`: public scores instead of
    components.

    Raises:
        DataError: The cohort is unknown or its files are missing.
    """
    if cohort not in GENOMICS:
        raise DataError(f"unknown TCGA cohort '{cohort}'", cure=f"one of {', '.join(GENOMICS)}")
    folder = data / "tcga"
    genomics = genomics_table(folder, cohort)
    clinical = clinical_columns(folder, genomics)
    sets = _components(folder, cohort, genomics, components)
    rows = pd.DataFrame(centred(clinical), genomics.index, CLINICAL_COLUMNS)
    sets["clinical"] = _set("clinical", rows, _SCORE_SCALING)
    if trunk:
        sets |= _trunk_scores(folder, cohort, genomics)
    return Cohort(
        name=f"tcga_{cohort}",
        patient_ids=[str(case) for case in genomics.index],
        hospital=np.array([case[5:7] for case in genomics.index], dtype=np.str_),
        specs={name: spec for name, (spec, _) in sets.items()},
        features={name: _bags(rows, genomics.index) for name, (_, rows) in sets.items()},
        response=response_labels(folder, genomics.index),
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
    table = read_csv(data / "tcga" / "tss_codes.csv")
    regions = table[table["Region"].notna()]
    return dict(zip(regions["TSS Code"], regions["Region"].str.lower(), strict=True))


def _set(modality: Modality, rows: pd.DataFrame, scaling: PublicScaling) -> FeatureSet:
    names = list(rows.columns) if rows.columns.dtype == object else None
    return FeatureSpec(modality=modality, dim=rows.shape[1], scaling=scaling, names=names), rows


def _bags(rows: pd.DataFrame, cases: pd.Index) -> list[npt.NDArray[np.float32] | None]:
    """Return one vector per patient; patients without a row lack the set."""
    of_case = dict(zip(rows.index, rows.to_numpy(dtype=np.float32), strict=True))
    return [of_case[case][None] if case in of_case else None for case in cases]


def _components(
    folder: Path, cohort: str, genomics: pd.DataFrame, components: int
) -> dict[str, FeatureSet]:
    sets = {}
    if cohort in PATHOLOGY:
        projection = slide_projection(folder, _others(PATHOLOGY, cohort), components)
        rows = projection.apply(slide_table(folder, cohort))
        sets["slide"] = _set("pathology", rows, _COMPONENT_SCALING)
    projection = rna_projection(folder, _others(GENOMICS, cohort), components)
    rows = projection.apply(rna_columns(genomics))
    sets["rna"] = _set("genomics", rows, _COMPONENT_SCALING)
    if cohort == "gbmlgg":
        mri = pd.concat([mri_table(folder, "gbm"), mri_table(folder, "lgg")])
        public = mri[~mri.index.isin(genomics.index)]  # imaged, but not patients of this cohort
        rows = fit_projection([public], components).apply(mri)
        sets["mri"] = _set("radiology", rows, _COMPONENT_SCALING)
    return sets


def _trunk_scores(folder: Path, cohort: str, genomics: pd.DataFrame) -> dict[str, FeatureSet]:
    """Return what slides, RNA, or age, sex and stage in the other cohorts say about patients."""
    sources: list[tuple[Source, Modality, tuple[str, ...], pd.DataFrame]] = [
        ("rna", "genomics", GENOMICS, genomics),
        ("clinical", "clinical", GENOMICS, genomics),
    ]
    if cohort in PATHOLOGY:
        sources.insert(0, ("slide", "pathology", PATHOLOGY, slide_table(folder, cohort)))
    sets = {}
    for source, modality, cohorts, table in sources:
        others = _others(cohorts, cohort)
        trunk = _trunk(folder, source, others)
        scores = trunk.apply(_trunk_inputs(folder, source, others, table))
        rows = pd.DataFrame(scores, table.index, list(trunk.tasks))
        sets[f"{source}_trunk"] = _set(modality, rows, _SCORE_SCALING)
    return sets


@lru_cache(maxsize=16)
def _trunk(folder: Path, source: Source, others: tuple[str, ...]) -> PublicTrunk:
    cohorts = {}
    for other in others:
        patients = own = genomics_table(folder, other)
        if source == "slide":
            slides = slide_table(folder, other)
            patients = patients[patients.index.isin(slides.index)]
            own = slides.loc[patients.index]
        cohorts[other] = PublicPatients(
            inputs=_trunk_inputs(folder, source, others, own),
            time_months=patients["survival_months"].to_numpy(dtype=np.float64),
            event=1.0 - patients["censorship"].to_numpy(dtype=np.float64),
            response=response_labels(folder, patients.index),
        )
    return fit_trunk(cohorts)


def _trunk_inputs(
    folder: Path, source: Source, others: tuple[str, ...], table: pd.DataFrame
) -> FloatArray:
    if source == "clinical":
        return centred(clinical_columns(folder, table))
    if source == "rna":
        inputs = rna_projection(folder, others, RNA_COMPONENTS).apply(rna_columns(table))
    else:
        inputs = slide_projection(folder, others, SLIDE_COMPONENTS).apply(table)
    return inputs.to_numpy(dtype=np.float64)


def _others(cohorts: tuple[str, ...], cohort: str) -> tuple[str, ...]:
    return tuple(other for other in cohorts if other != cohort)
