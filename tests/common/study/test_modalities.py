"""The entries of the modalities agree with the type, the manifest's row and the handbook."""

from pathlib import Path
from typing import get_args

from common.cohort.manifest import PatientRow
from common.study.modalities import COLUMNS, MODALITIES, Modality

FORMATS = Path(__file__).parents[3] / "deploy" / "handbook" / "formats.md"


def test_the_type_names_exactly_the_entries_in_canonical_order():
    assert get_args(Modality) == MODALITIES


def test_every_column_has_a_field_of_the_row_and_a_line_of_the_handbook():
    manifest = FORMATS.read_text(encoding="utf-8").split("\n## ")[1]
    for column in COLUMNS:
        assert column.field in PatientRow.model_fields
        assert f"`{column.name}" in manifest


def test_raw_input_is_a_cell_of_the_first_kind_of_column():
    filled = {
        "pathology": {"slides": [Path("a.svs")]},
        "radiology": {"volumes": {"t1": Path("t1.nii")}},
        "genomics": {"rna": Path("rna.csv")},
        "clinical": {"clinical": {"age": 0.0, "sex": None}},
    }
    for modality, cells in filled.items():
        row = PatientRow(patient_id="p", **cells)
        assert [m for m in MODALITIES if row.has_raw(m)] == [modality]
    empty = PatientRow(patient_id="p", masks={"t1": Path("m.nii")}, clinical={"age": None})
    assert not any(map(empty.has_raw, MODALITIES))
