"""Read TCGA cohorts by hospital: slide features, RNA, MRI radiomics and clinical columns.

Hospital = tissue source site, characters 6-7 of the barcode. Everything that is fitted
(scaling, principal components, the public trunk) is fitted on public patients outside the
cohort - the other cohorts, and for MRI the imaged patients without genomics: nothing here costs
privacy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.errors import DataError
from common.study.study import FeatureSpec, PublicScaling
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.public_projection import fit_projection
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
from simulations.cohorts.tcga_trunk import trunk_scores

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
    sets = _Sets(genomics.index)
    _add_components(sets, folder, cohort, genomics, components)
    rows = pd.DataFrame(centred(clinical), genomics.index, CLINICAL_COLUMNS)
    sets.add("clinical", "clinical", rows, _SCORE_SCALING)
    if trunk:
        _add_trunk(sets, folder, cohort, genomics)
    return Cohort(
        name=f"tcga_{cohort}",
        patient_ids=[str(case) for case in genomics.index],
        hospital=np.array([case[5:7] for case in genomics.index], dtype=np.str_),
        specs=sets.specs,
        features=sets.features,
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
    known = table[table["Region"].notna()]
    return dict(zip(known["TSS Code"], known["Region"].str.lower(), strict=True))


class _Sets:
    """Feature sets of the patients of one cohort."""

    def __init__(self, cases: pd.Index) -> None:
        self._cases = cases
        self.specs: dict[str, FeatureSpec] = {}
        self.features: dict[str, list[npt.NDArray[np.float32] | None]] = {}

    def add(self, name: str, modality: str, rows: pd.DataFrame, scaling: PublicScaling) -> None:
        """Add one vector per patient; patients without a row lack the set."""
        names = list(rows.columns) if rows.columns.dtype == object else None
        self.specs[name] = FeatureSpec.model_validate(
            {"modality": modality, "dim": rows.shape[1], "scaling": scaling, "names": names}
        )
        of_case = dict(zip(rows.index, rows.to_numpy(dtype=np.float32), strict=True))
        self.features[name] = [
            None if case not in of_case else of_case[case][None] for case in self._cases
        ]


def _add_components(
    sets: _Sets, folder: Path, cohort: str, genomics: pd.DataFrame, components: int
) -> None:
    if cohort in PATHOLOGY:
        projection = slide_projection(folder, _others(PATHOLOGY, cohort), components)
        rows = projection.apply(slide_table(folder, cohort))
        sets.add("slide", "pathology", rows, _COMPONENT_SCALING)
    projection = rna_projection(folder, _others(GENOMICS, cohort), components)
    sets.add("rna", "genomics", projection.apply(rna_columns(genomics)), _COMPONENT_SCALING)
    if cohort == "gbmlgg":
        mri = pd.concat([mri_table(folder, "gbm"), mri_table(folder, "lgg")])
        public = mri[~mri.index.isin(genomics.index)]  # imaged, but not patients of this cohort
        rows = fit_projection([public], components).apply(mri)
        sets.add("mri", "radiology", rows, _COMPONENT_SCALING)


def _add_trunk(sets: _Sets, folder: Path, cohort: str, genomics: pd.DataFrame) -> None:
    others = _others(GENOMICS, cohort)
    if cohort in PATHOLOGY:
        slides = slide_table(folder, cohort)
        rows = trunk_scores(folder, "slide", _others(PATHOLOGY, cohort), slides)
        sets.add("slide_trunk", "pathology", rows, _SCORE_SCALING)
    rows = trunk_scores(folder, "rna", others, genomics)
    sets.add("rna_trunk", "genomics", rows, _SCORE_SCALING)
    rows = trunk_scores(folder, "clinical", others, genomics)
    sets.add("clinical_trunk", "clinical", rows, _SCORE_SCALING)


def _others(cohorts: tuple[str, ...], cohort: str) -> tuple[str, ...]:
    return tuple(other for other in cohorts if other != cohort)
