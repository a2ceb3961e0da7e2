import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from client.extract.volumes.volume_reader import mask_series, read_volume
from common.errors import ExtractionError

sitk = pytest.importorskip("SimpleITK")

UID = "1.2.826.0.1.3680043.8.498.7"


@pytest.fixture
def series(tmp_path: Path, radiology: Any, phantom: Any) -> Path:
    radiology.write_series(tmp_path / "scan", phantom.image, series_uid=UID)
    return tmp_path / "scan"


def change(path: Path, **values: Any) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def refused(folder: Path, **arguments: Any) -> str:
    with pytest.raises(ExtractionError) as error:
        read_volume(folder, **arguments)
    assert error.value.where
    assert error.value.cure
    return str(error.value)


def test_oblique_series_is_read_as_it_was_written(series: Path, phantom: Any) -> None:
    volume = read_volume(series)
    assert (volume.array == phantom.array).all()
    assert volume.series_uid == UID
    assert volume.spacing_mm == pytest.approx(phantom.image.GetSpacing(), abs=1e-6)
    corner = tuple(n - 1 for n in phantom.image.GetSize())
    for index in ((0, 0, 0), corner, (3, 17, 9)):
        assert volume.image.TransformIndexToPhysicalPoint(index) == pytest.approx(
            phantom.image.TransformIndexToPhysicalPoint(index), abs=1e-4
        )


def test_agrees_with_itk(series: Path) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image, volume = reader.Execute(), read_volume(series)
    assert (sitk.GetArrayFromImage(image) == volume.array).all()
    assert image.GetOrigin() == pytest.approx(volume.image.GetOrigin(), abs=1e-6)
    assert image.GetDirection() == pytest.approx(volume.image.GetDirection(), abs=1e-6)


def test_rescale_is_applied_slice_by_slice(series: Path, phantom: Any) -> None:
    for path in series.glob("*.dcm"):
        k = int(path.stem.split("_")[1])
        change(path, RescaleSlope=1 + k, RescaleIntercept=-k)
    expected = phantom.array * (1 + np.arange(16))[:, None, None] - np.arange(16)[:, None, None]
    assert np.allclose(read_volume(series).array, expected)


def test_other_objects_beside_the_slices_are_passed_over(
    series: Path, radiology: Any, phantom: Any
) -> None:
    radiology.write_rtstruct(series / "rs.dcm", phantom.mask, series_uid=UID)
    (series / "README.txt").write_text("notes")
    (series / ".DS_Store").write_bytes(b"\0")
    assert read_volume(series).array.shape == phantom.array.shape


def test_two_series_are_refused_unless_the_mask_tells(
    series: Path, radiology: Any, phantom: Any, tmp_path: Path
) -> None:
    other = radiology.make_phantom(angles=(0, 0, 0))
    radiology.write_series(tmp_path / "other", other.image, series_uid=UID + ".2")
    for path in (tmp_path / "other").iterdir():
        shutil.copy(path, series / f"b{path.name}")
    assert "2 DICOM series" in refused(series)
    radiology.write_rtstruct(tmp_path / "rs.dcm", other.mask, series_uid=UID + ".2")
    wanted = mask_series(tmp_path / "rs.dcm")
    assert read_volume(series, series_uids=wanted).series_uid == UID + ".2"
    assert "0 of them" in refused(series, series_uids={generate_uid()})


def test_a_slice_is_missing(series: Path) -> None:
    next(series.glob("*_7.dcm")).unlink()
    assert "one missing" in refused(series)


def test_two_phases_in_one_series(series: Path) -> None:
    for path in list(series.glob("*.dcm")):
        shutil.copy(path, series / f"again_{path.name}")
    assert "same place" in refused(series)


def test_tilted_gantry(series: Path, phantom: Any) -> None:
    for path in series.glob("*.dcm"):
        k = int(path.stem.split("_")[1])
        position = np.array(pydicom.dcmread(path).ImagePositionPatient, dtype=float)
        down = np.array(phantom.image.GetDirection()).reshape(3, 3)[:, 1]
        change(path, ImagePositionPatient=[f"{v:.8g}" for v in position + 0.6 * k * down])
    assert "tilted gantry" in refused(series)


def test_one_slice_unlike_the_others(series: Path, phantom: Any) -> None:
    """A scout left in the folder, or a slice of another scan sorted in between."""
    path = next(series.glob("*_0.dcm"))
    original = path.read_bytes()
    for name, value in (
        ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]),
        ("PixelSpacing", [2.0, 2.0]),
        ("FrameOfReferenceUID", generate_uid()),
    ):
        change(path, **{name: value})
        assert "slices differ in shape" in refused(series)
        path.write_bytes(original)


@pytest.mark.parametrize("keep", [0.98, 0.5, 0.05, 0.0])
def test_truncated_slice_is_named(series: Path, keep: float) -> None:
    path = next(series.glob("*_15.dcm"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert path.name in refused(series)


def test_slice_without_position_is_named(series: Path) -> None:
    path = next(series.glob("*_4.dcm"))
    dataset = pydicom.dcmread(path)
    del dataset.ImagePositionPatient
    dataset.save_as(path, enforce_file_format=True)
    assert path.name in refused(series)


def test_multi_frame_single_slice_and_empty_folder(series: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no DICOM image" in refused(tmp_path / "empty")
    (tmp_path / "single").mkdir()
    path = tmp_path / "single" / "a.dcm"
    shutil.copy(next(series.glob("*_0.dcm")), path)
    assert "only one slice" in refused(tmp_path / "single")
    change(path, NumberOfFrames=4)
    assert "multi-frame" in refused(tmp_path / "single")
