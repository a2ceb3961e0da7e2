import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.extract.volumes.volume import Volume
from client.extract.volumes.volume_reader import read_mask, read_volume
from common.errors import ErrorCode, ExtractionError

sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def nifti(tmp_path: Path, phantom: Any) -> Path:
    sitk.WriteImage(phantom.image, str(tmp_path / "scan.nii.gz"))
    return tmp_path / "scan.nii.gz"


def save(path: Path, array: np.ndarray, like: Any = None) -> Path:
    image = sitk.GetImageFromArray(array)
    if like is not None:
        image.CopyInformation(like)
    sitk.WriteImage(image, str(path))
    return path


def mask_refused(path: Path, volume: Volume, **arguments: Any) -> ExtractionError:
    with pytest.raises(ExtractionError) as error:
        read_mask(path, volume, **arguments)
    assert str(path) in error.value.where
    assert error.value.cure
    return error.value


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_formats_agree(tmp_path: Path, phantom: Any, ending: str) -> None:
    sitk.WriteImage(phantom.image, str(tmp_path / f"scan{ending}"))
    sitk.WriteImage(phantom.mask, str(tmp_path / f"mask{ending}"))
    volume = read_volume(tmp_path / f"scan{ending}")
    mask = read_mask(tmp_path / f"mask{ending}", volume)
    assert (volume.array == phantom.array).all()
    assert volume.spacing_mm == pytest.approx((1.1, 1.3, 3.0), rel=1e-5)
    assert (mask.array == phantom.region).all()
    assert mask.volume_ml == pytest.approx(phantom.volume_ml, rel=1e-5)


def test_one_label_of_several(tmp_path: Path, nifti: Path, phantom: Any) -> None:
    labels = phantom.region.astype(np.uint8) * 2
    labels[0, 0, 0] = 1
    path = save(tmp_path / "labels.nii.gz", labels, phantom.image)
    volume = read_volume(nifti)
    assert read_mask(path, volume).array.sum() == phantom.region.sum() + 1
    assert (read_mask(path, volume, label=2).array == phantom.region).all()
    assert "empty" in mask_refused(path, volume, label=7).what


def test_mask_of_another_shape(tmp_path: Path, nifti: Path, phantom: Any) -> None:
    path = save(tmp_path / "mask.nii.gz", phantom.region[:-1].astype(np.uint8))
    error = mask_refused(path, read_volume(nifti))
    assert error.code == ErrorCode.IMAGE_MASK_MISMATCH
    assert re.search(r"48, 40, 16.*48, 40, 15", error.why)


@pytest.mark.parametrize("shift_voxels", [0.02, 0.5])
def test_mask_of_the_same_shape_elsewhere(
    tmp_path: Path, nifti: Path, phantom: Any, shift_voxels: float
) -> None:
    """Rounding of headers is forgiven, half a voxel is not."""
    mask = sitk.Image(phantom.mask)
    mask.SetOrigin(mask.TransformContinuousIndexToPhysicalPoint((shift_voxels, 0.0, 0.0)))
    sitk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    if shift_voxels < 0.1:
        read_mask(tmp_path / "mask.nii.gz", read_volume(nifti))
        return
    error = mask_refused(tmp_path / "mask.nii.gz", read_volume(nifti))
    assert error.code == ErrorCode.IMAGE_MASK_MISMATCH


def test_mask_turned_by_ninety_degrees(tmp_path: Path, radiology: Any) -> None:
    """A cube, so that shape and centre agree and only the axes tell."""
    cube = radiology.make_phantom((20, 20, 20), (2, 2, 2), (0, 0, 0))
    turned = sitk.Image(cube.mask)
    turned.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, 1))
    sitk.WriteImage(turned, str(tmp_path / "mask.nrrd"))
    volume = Volume(sitk.Cast(cube.image, sitk.sitkFloat32), tmp_path)
    assert mask_refused(tmp_path / "mask.nrrd", volume).code == ErrorCode.IMAGE_MASK_MISMATCH


def test_unusable_values(tmp_path: Path, nifti: Path, phantom: Any) -> None:
    broken = phantom.array.astype(np.float32)
    broken[3, 4, 5:9] = np.nan
    path = save(tmp_path / "nan.nii.gz", broken, phantom.image)
    with pytest.raises(ExtractionError, match="4 voxels are NaN"):
        read_volume(path)
    assert "NaN" in mask_refused(path, read_volume(nifti)).what
    empty = save(tmp_path / "empty.nii.gz", np.zeros_like(phantom.array), phantom.image)
    assert "empty" in mask_refused(empty, read_volume(nifti)).what


def test_no_volume_at_all(tmp_path: Path, nifti: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "cut.nii.gz").write_bytes(nifti.read_bytes()[:4000])
    save(tmp_path / "series.nii.gz", np.zeros((2, 4, 5, 6), np.float32))
    save(tmp_path / "flat.nii.gz", np.zeros((5, 6), np.float32))
    colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "colour.nii.gz"))
    names = ("note.txt", "cut.nii.gz", "series.nii.gz", "flat.nii.gz", "colour.nii.gz", "absent")
    for name in names:
        with pytest.raises(ExtractionError) as error:
            read_volume(tmp_path / name)
        assert name in error.value.where
        assert error.value.cure
    refused = mask_refused(tmp_path / "note.txt", read_volume(nifti))
    assert "no mask that can be read" in refused.what


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.02, 0.0])
def test_file_that_was_cut_short(tmp_path: Path, phantom: Any, ending: str, kept: float) -> None:
    """ITK reads a shortened NIfTI file as zeros without a word; it must be refused."""
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(phantom.image, str(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ExtractionError) as error:
        read_volume(path)
    assert path.name in error.value.where


def test_flipped_bit_in_compressed_voxels(nifti: Path) -> None:
    content = bytearray(nifti.read_bytes())
    content[len(content) // 2] ^= 4
    nifti.write_bytes(bytes(content))
    with pytest.raises(ExtractionError, match="damaged"):
        read_volume(nifti)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd"])
def test_voxels_that_are_no_numbers(
    tmp_path: Path, phantom: Any, kind: Any, value: float, ending: str
) -> None:
    """ITK's NIfTI reader turns them into zeros."""
    array = phantom.array.astype(kind)
    array[2, 3, 4:7] = value
    path = save(tmp_path / f"scan{ending}", array, phantom.image)
    with pytest.raises(ExtractionError, match="3 voxels are NaN or infinite"):
        read_volume(path)


def test_slices_as_a_mask(tmp_path: Path, radiology: Any, phantom: Any, nifti: Path) -> None:
    radiology.write_series(tmp_path / "scan", phantom.image)
    slice_file = next((tmp_path / "scan").iterdir())
    assert "modality 'MR' is no mask" in mask_refused(slice_file, read_volume(nifti)).what
    assert "holds 0 structure sets" in mask_refused(tmp_path / "scan", read_volume(nifti)).what
