from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from client.extract.volumes.volume import Volume
from client.extract.volumes.volume_reader import mask_series, read_mask, read_volume
from common.errors import ErrorCode, ExtractionError

sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def written(tmp_path: Path, radiology: Any, phantom: Any) -> tuple[Volume, list[Any]]:
    datasets = radiology.write_series(tmp_path / "scan", phantom.image)
    return read_volume(tmp_path / "scan"), datasets


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_reads_what_highdicom_writes(
    tmp_path: Path, written: tuple[Volume, list[Any]], radiology: Any, phantom: Any, kind: str
) -> None:
    volume, datasets = written
    rest = ~phantom.region & (phantom.array > 200)
    radiology.write_seg(
        tmp_path / "seg.dcm", {"Tumor": phantom.region, "Body": rest}, datasets, kind
    )
    assert mask_series(tmp_path / "seg.dcm") == {volume.series_uid}
    assert (read_mask(tmp_path / "seg.dcm", volume).array == phantom.region).all()
    body = read_mask(tmp_path / "seg.dcm", volume, roi="body")
    assert (body.array == rest).all()
    assert body.volume_ml == pytest.approx(rest.sum() * np.prod(volume.spacing_mm) / 1000)


def test_order_of_frames_does_not_matter(
    tmp_path: Path, written: tuple[Volume, list[Any]], radiology: Any, phantom: Any
) -> None:
    """The segmentation runs through the slices backwards; its frames say where they lie."""
    volume, datasets = written
    radiology.write_seg(tmp_path / "seg.dcm", {"GTV": phantom.region[::-1]}, datasets[::-1])
    assert (read_mask(tmp_path / "seg.dcm", volume).array == phantom.region).all()


def test_other_grid_is_resampled(
    tmp_path: Path, written: tuple[Volume, list[Any]], radiology: Any, phantom: Any
) -> None:
    _, datasets = written
    radiology.write_seg(tmp_path / "seg.dcm", {"GTV": phantom.region}, datasets)
    grid = sitk.Expand(phantom.image, [2, 2, 3])
    volume = Volume(sitk.Cast(grid, sitk.sitkFloat32), tmp_path)
    mask = read_mask(tmp_path / "seg.dcm", volume)
    expected = sitk.Resample(phantom.mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    differ = mask.array != (sitk.GetArrayFromImage(expected) > 0)
    assert differ.mean() < 0.001
    assert mask.volume_ml == pytest.approx(phantom.volume_ml, rel=0.02)


def test_refusals(
    tmp_path: Path, written: tuple[Volume, list[Any]], radiology: Any, phantom: Any
) -> None:
    volume, datasets = written
    path = tmp_path / "seg.dcm"
    radiology.write_seg(path, {"Breast": phantom.region}, datasets)
    with pytest.raises(ExtractionError, match="the file holds: Breast"):
        read_mask(path, volume)
    half = Volume(volume.image[:, :, :7], tmp_path)
    with pytest.raises(ExtractionError, match="lies outside") as error:
        read_mask(path, half, roi="Breast")
    assert error.value.code == ErrorCode.IMAGE_MASK_MISMATCH
    other = Volume(volume.image, tmp_path, frame_of_reference="1.2.3")
    with pytest.raises(ExtractionError, match="frames of reference"):
        read_mask(path, other, roi="Breast")
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(ExtractionError, match="segmentation cannot be read"):
        read_mask(path, volume, roi="Breast")
