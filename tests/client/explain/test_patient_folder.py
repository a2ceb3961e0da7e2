import json
from pathlib import Path

import pytest

from client.explain.explain import RECORD, patient_folder


def write(target: Path, **texts: str) -> None:
    with patient_folder(target) as waiting:
        for name, text in texts.items():
            (waiting / f"{name}.txt").write_text(text)
        files = [f"{name}.txt" for name in texts]
        (waiting / RECORD).write_text(json.dumps({"files": files}))


def write_half(target: Path) -> None:
    with patient_folder(target) as waiting:
        (waiting / "report.txt").write_text("half")
        raise RuntimeError


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_files_of_the_last_explanation_are_replaced_and_others_stay(tmp_path):
    target = tmp_path / "P1"
    write(target, report="old", overlay="old")
    (target / "notes of the doctor.txt").write_text("mine")
    write(target, report="new")
    assert names(target) == {"report.txt", RECORD, "notes of the doctor.txt"}
    assert (target / "report.txt").read_text() == "new"
    assert names(tmp_path) == {"P1"}


def test_after_an_error_nothing_has_changed(tmp_path):
    target = tmp_path / "P1"
    write(target, report="old")
    for patient in ("P1", "P2"):
        with pytest.raises(RuntimeError):
            write_half(tmp_path / patient)
    assert (target / "report.txt").read_text() == "old"
    assert names(tmp_path) == {"P1"}


@pytest.mark.parametrize("named", ['{"files": ["../keep.txt", "sub/keep.txt"]}', "{", "[]"])
def test_a_tampered_record_removes_nothing_elsewhere(tmp_path, named):
    keep = tmp_path / "keep.txt"
    keep.write_text("mine")
    (tmp_path / "P1" / "sub").mkdir(parents=True)
    (tmp_path / "P1" / "sub" / "keep.txt").write_text("mine")
    (tmp_path / "P1" / RECORD).write_text(named)
    write(tmp_path / "P1", report="new")
    assert keep.exists()
    assert (tmp_path / "P1" / "sub" / "keep.txt").exists()
