"""The manifest tells every problem at once, and reads what is right."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.cohort.funnel import build_funnel
from common.cohort.manifest import Manifest, read_manifest
from common.cohort.outcomes import DAYS_PER_MONTH, to_months
from common.errors import ManifestError, RowProblem
from common.study.study import TASKS, FeatureSpec


def write(folder: Path, text: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> list[RowProblem]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(folder, text))
    return list(caught.value.problems)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_good_manifest_is_read_whole(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif", "ct.nii.gz", "m.nii.gz", "rna.csv")
    (tmp_path / "dicom").mkdir()
    text = (
        "patient_id,slides,volume_ct,mask_ct,volume_t1,mask_t1,rna,"
        "clinical_age,clinical_stage,response,time,time_unit,event\n"
        'p1,"a.tif; b.tif",ct.nii.gz,m.nii.gz,dicom,m.nii.gz,rna.csv,61,III,1,365.25,days,1\n'
        "\n"
        "p2,,,,,,NA,,unknown,,2,years,0\n"
        "p3,,,,,,,70.5,,0,,,\n"
    )
    manifest = read_manifest(write(tmp_path, text))
    first, second, third = manifest.rows
    assert first.slides == [tmp_path / "a.tif", tmp_path / "b.tif"]
    assert first.volumes == {"ct": tmp_path / "ct.nii.gz", "t1": tmp_path / "dicom"}
    assert first.masks["t1"] == first.masks["ct"] == tmp_path / "m.nii.gz"
    assert first.rna == tmp_path / "rna.csv"
    assert first.clinical == {"age": 61.0, "stage": "III"}
    assert (first.response, first.time_months, first.event) == (1, 12.0, 1)
    assert (second.response, second.time_months, second.event) == (None, 24.0, 0)
    assert second.clinical == {"age": None, "stage": "unknown"}
    assert second.rna is None
    assert (third.response, third.time_months) == (0, None)


BASE = "patient_id,slides,volume_ct,mask_ct,clinical_age,response,time,time_unit,event\n"


@pytest.mark.parametrize(
    ("row", "column", "what"),
    [
        ("p1,no.tif,,,,,,,", "slides", "no such file"),
        ("p1,,no.nii,,,,,,", "volume_ct", "no such file or folder"),
        ("p1,,,here.nii,,,,,", "mask_ct", "a mask without its volume"),
        ("p1,,,,inf,,,,", "clinical_age", "not a finite number"),
        ("p1,,,,,2,,,", "response", "0 or 1"),
        ("p1,,,,,yes,,,", "response", "not a number"),
        ("p1,,,,,,-3,days,1", "time", "negative time"),
        ('p1,,,,,,"12,5",days,1', "time", "write decimals with a point"),
        ("p1,,,,,,nine,days,1", "time", "not a number"),
        ("p1,,,,,,9e99,days,1", "time", "follow-up"),
        ("p1,,,,,,1300,months,1", "time", "follow-up of 108 years"),
        ("p1,,,,,,12,weeks,1", "time_unit", "unknown unit of time"),
        ("p1,,,,,,12,,1", "time_unit", "the time has no unit"),
        ("p1,,,,,,12,days,", "event", "a time without an event"),
        ("p1,,,,,,,,1", "event", "an event without its time"),
        ("p1,,,,,,12,days,3", "event", "0 or 1"),
        ("../p1,,,,,,,,", "patient_id", "not a usable identifier"),
        ("p 1,,,,,,,,", "patient_id", "not a usable identifier"),
        ("nul,,,,,,,,", "patient_id", "not a usable identifier"),
        (",here.nii,,,,,,,", "patient_id", "no identifier"),
        ("p1,,,", "patient_id", "4 cells, the header 9"),
        ("p1,here.nii;here.nii,,,,,,,", "slides", "already listed on row 2"),
        ("p1,here.nii,here.nii,,,,,,", "volume_ct", "already listed on row 2"),
        ("p1,,here.nii,here.nii,,,,,", "mask_ct", "already listed on row 2"),
    ],
)
def test_each_wrong_cell_is_named(tmp_path: Path, row: str, column: str, what: str) -> None:
    touch(tmp_path, "here.nii")
    (found,) = problems(tmp_path, BASE + row + "\n")
    assert (found.row, found.column) == (2, column)
    assert what in found.what
    assert found.cure


@pytest.mark.parametrize(
    ("header", "column", "what"),
    [
        ("patient_id,colour", "colour", "unknown column"),
        ("patient_id,Slides", "Slides", "unknown column"),
        ("patient_id,rna,rna", "rna", "occurs twice"),
        ("patient_id,mask_ct", "mask_ct", "without the column 'volume_ct'"),
        ("patient_id,time,event", "time_unit", "required column is missing"),
        ("patient_id,time_months", "event", "required column is missing"),
        ("patient_id,event", "time", "required column is missing"),
        ("patient_id,time,time_unit,time_months,event", "time_months", "both"),
        ("slides", "patient_id", "required column is missing"),
        ("patient_id,clinical_a b", "clinical_a b", "unknown column"),
    ],
)
def test_each_wrong_header_is_named(tmp_path: Path, header: str, column: str, what: str) -> None:
    cells = ",".join(["p1", *[""] * header.count(",")]) if "patient_id" in header else "NA"
    (found,) = problems(tmp_path, f"{header}\n{cells}\n")
    assert (found.row, found.column) == (None, column)
    assert what in found.what


def test_every_problem_of_the_file_comes_at_once(tmp_path: Path) -> None:
    text = BASE + "p1,,,,,7,-1,days,1\n\nP1,gone.tif,,,,,5,months,1\np3,,,,nan,,1,days,\n"
    found = problems(tmp_path, text.replace("patient_id,slides", "patient_id,slides", 1))
    assert [(p.row, p.column) for p in found] == [
        (2, "response"),
        (2, "time"),
        (4, "patient_id"),
        (4, "slides"),
        (5, "event"),
    ]
    assert "first on row 2" in found[2].what


def test_an_image_of_two_patients_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "m.nii", "v1.nii", "v2.nii")
    text = "patient_id,slides,volume_ct,mask_ct\np1,a.tif,v1.nii,m.nii\np2,./a.tif,v2.nii,m.nii\n"
    found = problems(tmp_path, text)
    assert [(p.row, p.column) for p in found] == [(3, "slides"), (3, "mask_ct")]


@pytest.mark.parametrize("text", ["", "patient_id\n", "patient_id,slides\n\n,\n"])
def test_a_manifest_without_patients_is_refused(tmp_path: Path, text: str) -> None:
    assert any(p.what == "the manifest has no patient" for p in problems(tmp_path, text))


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        read_manifest(tmp_path / "none.csv")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("patient_id,clinical_ort\np1,M\xfcnchen\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(latin)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(broken)


def test_semicolon_files_are_explained(tmp_path: Path) -> None:
    found = problems(tmp_path, "patient_id;slides\np1;a\n")
    assert any("separate the cells by commas" in p.cure for p in found)


def test_rows_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    text = 'patient_id,clinical_note,response\np1,"two\nlines",1\np2,x,9\n'
    (found,) = problems(tmp_path, text)
    assert found.row == 4


def test_parquet_equals_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "patient_id": ["1", "2"],
            "clinical_age": [61.0, float("nan")],
            "response": [1.0, float("nan")],
            "time_months": [12.5, 3.0],
            "event": [1, 0],
        }
    )
    frame.to_parquet(tmp_path / "m.parquet")
    frame.to_csv(tmp_path / "m.csv", index=False)
    assert read_manifest(tmp_path / "m.parquet").rows == read_manifest(tmp_path / "m.csv").rows


def test_utf8_with_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_text("patient_id,clinical_ort\np1,Köln\n", encoding="utf-8-sig")
    assert read_manifest(path).rows[0].clinical == {"ort": "Köln"}


@given(value=st.floats(min_value=0, max_value=30_000, allow_nan=False))
def test_units_of_time_agree(value: float) -> None:
    assert to_months(value, "days") * DAYS_PER_MONTH == pytest.approx(value)
    assert to_months(value / 365.25, "years") == pytest.approx(to_months(value, "days"))


@settings(max_examples=50, deadline=None)
@given(
    cells=st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=9, max_size=9),
        max_size=4,
    )
)
def test_no_content_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("m") / "m.csv"
    frame = pd.DataFrame(cells, columns=BASE.strip().split(","), dtype=str)
    try:
        frame.to_csv(path, index=False)
    except Exception:  # a text pandas itself cannot write is no test
        return
    try:
        manifest = read_manifest(path)
    except ManifestError:
        return
    assert len(set(manifest.patient_ids)) == len(manifest)


def cohort(folder: Path) -> Manifest:
    touch(folder, "a.tif", "b.tif")
    return read_manifest(
        write(
            folder,
            "patient_id,slides,clinical_age,response,time_months,event\n"
            "both,a.tif,60,1,5,1\n"
            "unlabelled,b.tif,60,,,\n"
            "unextracted,,61,,7,0\n"
            "bare,,,0,,\n",
        )
    )


def test_funnel_counts_and_says_why(tmp_path: Path) -> None:
    features = {
        "tiles": FeatureSpec(modality="pathology", dim=4),
        "table": FeatureSpec(modality="clinical", dim=2),
    }
    stored = {("tiles", "both"), ("tiles", "unlabelled"), ("table", "both")}
    funnel = build_funnel(cohort(tmp_path).rows, features, lambda f, p: (f, p) in stored, TASKS)
    assert (funnel.rows, funnel.patients, funnel.with_outcome, funnel.usable) == (4, 4, 3, 1)
    assert [(c.named, c.extracted) for c in funnel.features] == [(2, 2), (3, 1)]
    assert funnel.outcomes == {"response": 2, "survival": 2}
    assert {loss.reason.split(" (")[0]: loss.patient_ids for loss in funnel.lost} == {
        "no outcome": ["unlabelled"],
        "input named but no features extracted": ["unextracted"],
        "no input of any modality of the study": ["bare"],
    }
    assert funnel.usable_ids == ["both"]
    assert funnel.usable + sum(len(loss.patient_ids) for loss in funnel.lost) == funnel.patients
    text = "\n".join(funnel.lines())
    assert "lost 1: no outcome (response or survival): unlabelled" in text


def test_funnel_asks_only_for_the_tasks_of_the_study(tmp_path: Path) -> None:
    features = {"table": FeatureSpec(modality="clinical", dim=2)}
    funnel = build_funnel(cohort(tmp_path).rows, features, lambda _f, _p: True, ("response",))
    assert funnel.usable_ids == ["both", "bare"]
