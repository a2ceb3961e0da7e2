"""Draw the same planted signal directly as features, for thousands of patients.

No file is written and no encoder runs, so a benchmark can ask how close a model comes to the
oracle. Patients, factors and outcomes are those of `draw_cohort`, hence of the files.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from common.contract import Contract
from common.study.study import FeatureSpec
from simulations.cohorts.cohort import Cohort, concatenate
from simulations.synthetic.clinical_record import HISTOLOGIES, SEXES, STAGES
from simulations.synthetic.cohort import SiteCohort, draw_cohort
from simulations.synthetic.expression import pathway_tokens, transcriptome
from simulations.synthetic.site_files import clinical_records, rna_table
from simulations.synthetic.spec import ConsortiumSpec
from simulations.synthetic.streams import stream

FloatArray = npt.NDArray[np.float32]

CLINICAL_COLUMNS = (
    "age",
    "sex=male",
    "stage",
    *(f"histology={name}" for name in HISTOLOGIES),
    "ecog",
    "ldh",
    "haemoglobin",
    "stage?missing",
    "histology?missing",
    "ecog?missing",
    "ldh?missing",
    "haemoglobin?missing",
)


class FeatureShape(Contract):
    """Sizes of the drawn features."""

    tile_dim: int = Field(default=32, ge=8)
    tiles: tuple[int, int] = Field(default=(16, 32), description="fewest and most per patient")
    informative: tuple[float, float] = Field(
        default=(0.2, 0.5), description="share of tiles that show the factor"
    )
    slice_dim: int = Field(default=24, ge=8)
    slices: int = Field(default=9, ge=1)
    radiomics_dim: int = Field(default=24, ge=8)
    site_offset: float = Field(
        default=0.15, ge=0, description="sd of a site's offset to a column, times site_shift"
    )


def drawn_feature_sets(shape: FeatureShape) -> dict[str, FeatureSpec]:
    """Return the feature sets of `feature_consortium`; drawn on a common scale, so unscaled."""
    pathways = transcriptome().pathways
    return {
        "tiles": FeatureSpec(modality="pathology", dim=shape.tile_dim, max_tokens=shape.tiles[1]),
        "slices": FeatureSpec(modality="radiology", dim=shape.slice_dim, max_tokens=shape.slices),
        "radiomics": FeatureSpec(modality="radiology", dim=shape.radiomics_dim),
        "pathways": FeatureSpec(
            modality="genomics",
            dim=max(len(genes) for genes in pathways.values()),
            max_tokens=len(pathways),
            pool="row_mean",
            names=list(pathways),
        ),
        "clinical_table": FeatureSpec(
            modality="clinical", dim=len(CLINICAL_COLUMNS), names=list(CLINICAL_COLUMNS)
        ),
    }


def feature_consortium(spec: ConsortiumSpec, shape: FeatureShape | None = None) -> Cohort:
    """Return the patients of all hospitals as features.

    Feature sets: `tiles`, `slices`, `radiomics`, `pathways`, `clinical_table`. A tile bag shows
    the pathology factor in some of its tiles only, along a direction that those tiles share.

    Args:
        spec: The consortium; image sizes and formats are ignored.
        shape: Sizes of the features.
    """
    sizes = shape or FeatureShape()
    return concatenate([_site_cohort(spec, sizes, draw_cohort(spec, site)) for site in spec.sites])


def _site_cohort(spec: ConsortiumSpec, shape: FeatureShape, cohort: SiteCohort) -> Cohort:
    n, specs = len(cohort.patient_ids), drawn_feature_sets(shape)
    features: dict[str, list[FloatArray | None]] = {
        "tiles": [_tiles(spec, shape, cohort, index) for index in range(n)],
        "slices": [_slices(spec, shape, cohort, index) for index in range(n)],
        "radiomics": [_radiomics(spec, shape, cohort, index) for index in range(n)],
        "pathways": _pathways(spec, cohort),
        "clinical_table": [_encode(record) for record in clinical_records(spec, cohort)],
    }
    for name, bags in features.items():
        present = cohort.has(specs[name].modality)
        features[name] = [bag if here else None for bag, here in zip(bags, present, strict=True)]
    return Cohort(
        name="synthetic_features",
        patient_ids=cohort.patient_ids,
        hospital=np.full(n, cohort.site.site_id),
        specs=specs,
        features=features,
        response=cohort.response,
        time_months=cohort.time_months,
        event=cohort.event,
        clinical=pd.DataFrame(index=range(n)),
        notes=("SYNTHETIC patients: the figures prove code, not medicine.",),
    )


def _direction(name: str, dim: int) -> npt.NDArray[np.float64]:
    """Return a public unit vector (dim,)."""
    vector = stream(0, "public", "direction", name).standard_normal(dim)
    return np.asarray(vector / np.linalg.norm(vector))


def _offset(
    spec: ConsortiumSpec, shape: FeatureShape, site_id: str, name: str, dim: int
) -> FloatArray:
    """Return the hospital's technical offset (dim,)."""
    scale = shape.site_offset * spec.site_shift
    draws = stream(spec.seed, site_id, "offset", name).standard_normal(dim)
    return (scale * draws).astype(np.float32)


def _tiles(spec: ConsortiumSpec, shape: FeatureShape, cohort: SiteCohort, index: int) -> FloatArray:
    patient, dim = cohort.patient_ids[index], shape.tile_dim
    generator = stream(spec.seed, patient, "tile-features")
    count = int(generator.integers(shape.tiles[0], shape.tiles[1] + 1))
    n_informative = max(2, round(count * generator.uniform(*shape.informative)))
    bag = 0.4 * generator.standard_normal((count, dim))
    bag[:, :] -= 1.0 * _direction("tumour tissue", dim)
    factor = cohort.factor("pathology")[index]
    bag[:n_informative] += 3.0 * _direction("tumour tissue", dim)
    bag[:n_informative] += 1.4 * factor * _direction("lymphocytes", dim)
    generator.shuffle(bag)
    return bag.astype(np.float32) + _offset(spec, shape, cohort.site.site_id, "tiles", dim)


def _slices(
    spec: ConsortiumSpec, shape: FeatureShape, cohort: SiteCohort, index: int
) -> FloatArray:
    patient, dim = cohort.patient_ids[index], shape.slice_dim
    generator = stream(spec.seed, patient, "slice-features")
    bag = 0.6 * generator.standard_normal((shape.slices, dim))
    bag += cohort.factor("radiology")[index] * _direction("ring", dim)
    return bag.astype(np.float32) + _offset(spec, shape, cohort.site.site_id, "slices", dim)


def _radiomics(
    spec: ConsortiumSpec, shape: FeatureShape, cohort: SiteCohort, index: int
) -> FloatArray:
    """Return (1, dim): a quarter of the columns show the factor, up or down."""
    patient, dim = cohort.patient_ids[index], shape.radiomics_dim
    row = stream(spec.seed, patient, "radiomics-features").standard_normal((1, dim))
    sign = np.where(np.arange(dim) % 2 == 0, 1.0, -1.0)
    factor = cohort.factor("radiology")[index]
    telling = np.arange(dim) < dim // 4
    row = np.where(telling, 0.55 * row + 0.8 * sign * factor, row)
    return row.astype(np.float32) + _offset(spec, shape, cohort.site.site_id, "radiomics", dim)


def _pathways(spec: ConsortiumSpec, cohort: SiteCohort) -> list[FloatArray | None]:
    table, biology = rna_table(spec, cohort), transcriptome()
    return [
        pathway_tokens(table.loc[patient].to_numpy(), biology.mean, biology.sd).astype(np.float32)
        if patient in table.index
        else None
        for patient in cohort.patient_ids
    ]


def _encode(record: dict[str, str | float | None]) -> FloatArray:
    """Return the clinical columns as numbers (1, D); a missing cell is 0 with its flag 1."""

    def scaled(name: str, center: float, scale: float) -> float:
        value = record[name]
        return 0.0 if value is None else (float(value) - center) / scale

    stage, histology, ldh = record["stage"], record["histology"], record["ldh"]
    values = [
        scaled("age", 59.0, 9.0),
        float(record["sex"] == SEXES[1]),
        0.0 if stage is None else STAGES.index(str(stage)) - 1.5,
        *(float(histology == name) for name in HISTOLOGIES),
        scaled("ecog", 1.0, 1.0),
        0.0 if ldh is None else float(np.log(float(ldh) / 220) / 0.3),
        scaled("haemoglobin", 13.3, 1.3),
    ]
    flags = ("stage", "histology", "ecog", "ldh", "haemoglobin")
    values += [float(record[name] is None) for name in flags]
    return np.array([values], np.float32)
