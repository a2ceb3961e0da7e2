"""Define the feature sets of the synthetic study: which extractors read the raw files, and how."""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from client.extract.clinical.clinical_table import ClinicalTableParams
from common.study.study import ExtractorSpec, FeatureSpec, PublicScaling
from simulations.synthetic.clinical_record import HISTOLOGIES, SEXES, STAGES
from simulations.synthetic.expression import transcriptome
from simulations.synthetic.phantom import SEQUENCES

ENCODER_DIM = 1280
SENTENCE_DIM = 384
RADIOMICS_FEATURES = 107
SLICES_EACH_SIDE = 1

CLINICAL_VARIABLES: list[dict[str, Any]] = [
    {"kind": "numeric", "name": "age", "center": 59.0, "scale": 9.0},
    {"kind": "categorical", "name": "sex", "categories": list(SEXES)},
    {"kind": "ordinal", "name": "stage", "levels": list(STAGES)},
    {"kind": "categorical", "name": "histology", "categories": list(HISTOLOGIES)},
    {"kind": "numeric", "name": "ecog", "center": 1.0, "scale": 1.0},
    {"kind": "numeric", "name": "ldh", "center": 230.0, "scale": 70.0},
    {"kind": "numeric", "name": "haemoglobin", "center": 13.3, "scale": 1.3},
]
"""Centres and scales are those of the invented population, chosen before any patient."""

SENTENCES: list[dict[str, str]] = [
    {"variable": "age", "sentence": "The patient is {value} years old."},
    {"variable": "sex", "sentence": "The patient is {value}."},
    {"variable": "stage", "sentence": "The tumor is at stage {value}."},
    {"variable": "histology", "sentence": "The histologic subtype of the tumor is {value}."},
    {"variable": "ecog", "sentence": "The performance status of the patient is {value}."},
]

SCALED_BY_REFERENCE = ("tiles", "slices", "radiomics", "clinical_text")
"""Feature sets whose public constants come from the public draw."""


def raw_feature_sets(scaling: Mapping[str, PublicScaling] | None = None) -> dict[str, FeatureSpec]:
    """Return the feature sets that the extractors make of the raw files.

    Args:
        scaling: Public constants of the sets in `SCALED_BY_REFERENCE`; none leaves them raw.
    """
    scalings = scaling or {}
    sequences: dict[str, JsonValue] = {
        "sequences": [*SEQUENCES],
        "preprocess": {"n4": {"shrink": 4, "max_voxels": 2000, "iterations": [12, 12]}},
    }
    return {
        "tiles": FeatureSpec(
            modality="pathology",
            dim=ENCODER_DIM,
            max_tokens=48,
            scaling=scalings.get("tiles", PublicScaling()),
            extractor=ExtractorSpec(kind="tiles"),
        ),
        "slices": FeatureSpec(
            modality="radiology",
            dim=ENCODER_DIM,
            max_tokens=len(SEQUENCES) * (2 * SLICES_EACH_SIDE + 1),
            scaling=scalings.get("slices", PublicScaling()),
            extractor=ExtractorSpec(
                kind="slices", params={**sequences, "choice": {"context": SLICES_EACH_SIDE}}
            ),
        ),
        "radiomics": FeatureSpec(
            modality="radiology",
            dim=RADIOMICS_FEATURES + len(SEQUENCES),
            max_tokens=len(SEQUENCES),
            pool="flatten",
            scaling=scalings.get("radiomics", PublicScaling()),
            extractor=ExtractorSpec(
                kind="radiomics", params={**sequences, "transform": "signed_log"}
            ),
        ),
        "pathways": _pathways(),
        "clinical_table": _clinical_table(),
        "clinical_text": FeatureSpec(
            modality="clinical",
            dim=SENTENCE_DIM,
            max_tokens=len(SENTENCES),
            scaling=scalings.get("clinical_text", PublicScaling()),
            extractor=ExtractorSpec(kind="clinical_text", params={"templates": [*SENTENCES]}),
        ),
    }


def _pathways() -> FeatureSpec:
    biology = transcriptome()
    longest = max(len(genes) for genes in biology.pathways.values())
    used = {gene for genes in biology.pathways.values() for gene in genes}
    scaling = {
        gene: [round(mean, 4), round(sd, 4)]
        for gene, mean, sd in zip(
            biology.genes, biology.mean.tolist(), biology.sd.tolist(), strict=True
        )
        if gene in used
    }
    sets = [{"name": name, "genes": [*genes]} for name, genes in biology.pathways.items()]
    return FeatureSpec(
        modality="genomics",
        dim=longest,
        max_tokens=len(sets),
        pool="row_mean",
        names=list(biology.pathways),
        extractor=ExtractorSpec.model_validate(
            {
                "kind": "pathways",
                "params": {"sets": sets, "gene_scaling": scaling, "input_scale": "log2_tpm"},
            }
        ),
    )


def _clinical_table() -> FeatureSpec:
    columns = ClinicalTableParams.model_validate({"variables": CLINICAL_VARIABLES}).columns
    return FeatureSpec(
        modality="clinical",
        dim=len(columns),
        names=columns,
        extractor=ExtractorSpec(kind="clinical_table", params={"variables": [*CLINICAL_VARIABLES]}),
    )
