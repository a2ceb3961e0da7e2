"""The entries of the modalities agree with the type, the manifest's row and the handbook."""

from pathlib import Path
from typing import get_args

from common.cohort.manifest import PatientRow
from common.study.modalities import COLUMNS, MODALITIES, MODALITY_ENTRIES, Modality

FORMATS = Path(__file__).parents[3] / "deploy" / "handbook" / "formats.md"


def test_the_type_names_exactly_the_entries_in_canonical_order():
    assert get_args(Modality) == MODALITIES


def test_every_column_has_a_field_of_the_row_and_a_line_of_the_handbook():
    manifest = FORMATS.read_text(encoding="utf-8").split("\n## ")[1]
    for column in COLUMNS:
        assert column.field in PatientRow.model_fields
        assert f"`{column.name}" in manifest


def test_raw_input_is_a_cell_of_the_first_kind_of_column():
    cells = {
        "files": [Path("a.svs")],
        "image": {"t1": Path("t1.nii")},
        "table": Path("rna.csv"),
        "value": {"age": 0.0, "sex": None},
    }
    for entry in MODALITY_ENTRIES:
        first = entry.columns[0]
        row = PatientRow.model_validate({"patient_id": "p", first.field: cells[first.holds]})
        assert [m for m in MODALITIES if row.has_raw(m)] == [entry.name]
    empty = PatientRow(patient_id="p", masks={"t1": Path("m.nii")}, clinical={"age": None})
    assert not any(map(empty.has_raw, MODALITIES))
