"""List the modalities: what a manifest says of each, and what its tokens are.

A new modality is one entry here, and an extractor unless its features come ready-made; manifest,
schema, funnel, models, batches, explanations and reports follow. A new kind of column also needs
a typed field in `common.cohort.manifest.PatientRow`.
"""

from dataclasses import dataclass
from typing import Literal

from common.registry import Registry

Modality = Literal["pathology", "radiology", "genomics", "clinical"]


@dataclass(frozen=True)
class Column:
    """A column of the manifest, or one column for each of several things.

    Attributes:
        name: Name; where `each` is set, its prefix.
        field: Attribute of `PatientRow` that holds the cells.
        holds: `files`: paths separated by ';'; `image`: a file or folder of one patient; `mask`: a
            file that one patient's images may share; `table`: a file that all patients share;
            `value`: text or a number.
        each: What there is one column for; empty for a single column.
        needs: Prefix of the columns of which one must have the same rest of the name.
        meaning: For the JSON schema.
    """

    name: str
    field: str
    holds: Literal["files", "image", "mask", "table", "value"]
    each: str = ""
    needs: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class ModalityEntry:
    """One modality; its name is also the first part of the names of its parameters.

    Attributes:
        name: As `features.<name>.modality` says it.
        columns: Its columns; who has a cell of the first kind has raw input.
        tiled: Whether `coords` of a feature file are places on the patient's slides, level-0 px.
        tabular: Whether each column of a single token means something, e.g. age.
    """

    name: Modality
    columns: tuple[Column, ...]
    tiled: bool = False
    tabular: bool = False


MODALITY_ENTRIES = Registry(
    "modality",
    (
        ModalityEntry(
            "pathology",
            (Column("slides", "slides", "files", meaning="whole-slide images, several with ';'"),),
            tiled=True,
        ),
        ModalityEntry(
            "radiology",
            (
                Column(
                    "volume_", "volumes", "image", "sequence", meaning="NIfTI, NRRD or DICOM folder"
                ),
                Column(
                    "mask_",
                    "masks",
                    "mask",
                    "sequence",
                    needs="volume_",
                    meaning="NIfTI, NRRD, RTSTRUCT or SEG",
                ),
            ),
        ),
        ModalityEntry(
            "genomics",
            (Column("rna", "rna", "table", meaning="the site's table, patients x genes"),),
        ),
        ModalityEntry(
            "clinical", (Column("clinical_", "clinical", "value", "variable"),), tabular=True
        ),
    ),
)

MODALITIES: tuple[Modality, ...] = tuple(entry.name for entry in MODALITY_ENTRIES)
"""All names in canonical order."""

COLUMNS: tuple[Column, ...] = tuple(c for entry in MODALITY_ENTRIES for c in entry.columns)
"""Columns of all modalities."""
