"""Read the patient table of one hospital and report all its problems together.

One row per patient. Columns: `patient_id`; those of the modalities (`common.study.modalities`);
`response` (0/1); `time` with `time_unit`, or `time_months`; `event` (0/1). Empty cells mean not
known. Paths are relative to the manifest's folder unless absolute.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from common.cohort.manifest_rows import RowReader
from common.cohort.manifest_table import RawTable, check_header, read_table
from common.contract import Contract
from common.errors import ManifestError, RowProblem
from common.study.modalities import MODALITY_ENTRIES, Modality
from common.study.study import Task


class PatientRow(Contract):
    """One patient of the manifest, checked; absent entries are empty or None."""

    patient_id: str = Field(description="unique; letters, digits, '_', '-', '.'")
    slides: list[Path] = Field(default_factory=list, description="whole-slide images")
    volumes: dict[str, Path] = Field(
        default_factory=dict, description="sequence -> NIfTI/NRRD file or DICOM folder"
    )
    masks: dict[str, Path] = Field(
        default_factory=dict, description="sequence -> mask: NIfTI, NRRD, RTSTRUCT or SEG"
    )
    rna: Path | None = Field(
        default=None, description="CSV or Parquet, patients x genes, first column patient_id"
    )
    clinical: dict[str, str | float | None] = Field(
        default_factory=dict, description="clinical variable -> value, None = not known"
    )
    response: int | None = Field(default=None, ge=0, le=1, description="1 = responder")
    time_months: float | None = Field(default=None, ge=0, description="follow-up in months")
    event: int | None = Field(default=None, ge=0, le=1, description="1 = died, 0 = censored")

    def observed(self, task: Task) -> bool:
        """Return whether this patient can train and judge `task`."""
        if task == "response":
            return self.response is not None
        return self.time_months is not None and self.event is not None

    def has_outcome(self, tasks: Sequence[Task]) -> bool:
        """Return whether the outcome of any of these tasks is known."""
        return any(map(self.observed, tasks))

    def has_raw(self, modality: Modality) -> bool:
        """Return whether the manifest names any raw input of a modality."""
        cell = getattr(self, MODALITY_ENTRIES.get(modality).columns[0].field)
        return any(v is not None for v in cell.values()) if isinstance(cell, dict) else bool(cell)


class Manifest(Contract):
    """All patients of one hospital, in the order of the file."""

    path: Path
    rows: list[PatientRow]

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.rows)

    @property
    def patient_ids(self) -> list[str]:
        """Patient identifiers in the order of the file."""
        return [row.patient_id for row in self.rows]

    def row(self, patient_id: str) -> PatientRow:
        """Return one patient.

        Raises:
            ManifestError: The patient is not in the manifest.
        """
        for row in self.rows:
            if row.patient_id == patient_id:
                return row
        raise ManifestError(
            str(self.path),
            [RowProblem(None, "patient_id", patient_id, "no such patient", "check the spelling")],
        )


def read_manifest(path: Path) -> Manifest:
    """Return the checked manifest; relative paths in it start from its own folder.

    Args:
        path: CSV (UTF-8, comma) or Parquet file.

    Raises:
        ManifestError: With every problem found: file, header and all rows.
    """
    table = read_table(path)
    header = check_header(table)
    # Rows are read even under a bad header, so that one run reports everything.
    reader = RowReader(header, path.parent)
    values = [reader.read(number, cells) for number, cells in table.rows]
    problems = [*header.problems, *_empty(table), *reader.problems]
    if problems:
        raise ManifestError(str(path), problems)
    return Manifest(path=path, rows=[PatientRow.model_validate(value) for value in values])


def _empty(table: RawTable) -> list[RowProblem]:
    if table.rows:
        return []
    return [
        RowProblem(None, "patient_id", "", "the manifest has no patient", "add one row per patient")
    ]
