from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.extract.encoders.tile_encoder import load_encoder
from client.extract.kinds.extractor import create_extractor
from client.extract.volumes.slices import SlicesExtractor
from client.extract.volumes.tumour_slices import SliceChoice, cut_slices
from client.extract.volumes.volume import Volume, make_mask
from common.cohort.features_h5 import read_features, write_features
from common.cohort.manifest import PatientRow
from common.errors import ConfigError
from common.study.study import ExtractorSpec, FeatureSpec

sitk = pytest.importorskip("SimpleITK")
LIMITS = (0.0, 255.0)


def scan(
    direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
    spacing: tuple[float, float, float] = (1.0, 1.0, 4.0),
) -> tuple[Volume, Any]:
    """Slice number as intensity, a tumour that is largest on slice 11."""
    k, j, i = np.meshgrid(np.arange(20), np.arange(40), np.arange(50), indexing="ij")
    image = sitk.GetImageFromArray((10 * k).astype(np.float32))
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    volume = Volume(image, Path("scan"))
    region = (abs(k - 11) < 5) & (abs(j - 15) < 8 - abs(k - 11)) & (abs(i - 30) < 6)
    return volume, make_mask(region, volume, Path("mask"), roi="x")


def cut(volume: Volume, mask: Any, **choice: Any) -> Any:
    return cut_slices(volume, mask, SliceChoice(**choice), limits=LIMITS, size_px=32)


def test_largest_section_with_neighbours() -> None:
    slices = cut(*scan())
    assert slices.indices.tolist() == [9, 10, 11, 12, 13]
    assert slices.axis == 0
    assert slices.images.shape == (5, 32, 32, 3)
    middle = slices.images[:, 16, 16]
    assert middle.tolist() == [[10 * (k - 1), 10 * k, 10 * (k + 1)] for k in range(9, 14)]


def test_one_slice_three_times_and_edges() -> None:
    slices = cut(*scan(), channels="replicate", context=0)
    assert slices.images[0, 16, 16].tolist() == [110, 110, 110]
    slices = cut(*scan(), context=30)
    assert slices.indices.tolist() == list(range(20))
    assert slices.images[0, 16, 16].tolist() == [0, 0, 10]
    assert slices.images[-1, 16, 16].tolist() == [180, 190, 190]


def test_pictures_do_not_depend_on_how_voxels_are_stored() -> None:
    """The same anatomy, stored with axes flipped and swapped."""
    rng = np.random.default_rng(0)
    volume, mask = scan()
    image = sitk.GetImageFromArray(rng.uniform(0, 255, (20, 40, 50)).astype(np.float32))
    image.CopyInformation(volume.image)
    region = sitk.Image(mask.image)
    plain = cut(Volume(image, Path("a")), mask)
    for order in ("RAS", "LPI", "PSL", "SRP"):
        stored = Volume(sitk.DICOMOrient(image, order), Path("b"))
        turned = sitk.GetArrayFromImage(sitk.DICOMOrient(region, order)) > 0
        other = cut(stored, make_mask(turned, stored, Path("m"), roi="x"))
        assert (other.images == plain.images).all()
        assert other.axis == plain.axis


def test_acquisition_plane_and_upright_head() -> None:
    """Thick slices from left to right: pictures are sagittal, feet at the bottom."""
    z = np.arange(60, dtype=np.float32)[:, None, None] * np.ones((1, 50, 12), np.float32)
    image = sitk.GetImageFromArray(z)
    image.SetSpacing((5.0, 1.0, 1.0))
    volume = Volume(image, Path("scan"))
    region = np.zeros(z.shape, bool)
    region[20:40, 20:35, 4:8] = True
    mask = make_mask(region, volume, Path("m"), roi="x")
    slices = cut(volume, mask, crop="whole")
    assert slices.axis == 2
    rows = slices.images[0, :, 16, 1].astype(int)
    assert (np.diff(rows[2:-2]) <= 0).all()
    assert cut(volume, mask, plane="axial").axis == 0


def test_nearly_cubic_voxels_are_cut_axially() -> None:
    """1.2 mm from left to right does not make a scan sagittal."""
    assert cut(*scan(spacing=(1.2, 1.0, 1.0))).axis == 0
    assert cut(*scan(spacing=(1.3, 1.0, 1.0))).axis == 2


def test_crop_is_square_in_millimetres() -> None:
    """A tumour of 30 x 30 mm on voxels of 1 x 2 mm fills the same share of rows and columns."""
    array = np.zeros((6, 60, 120), np.float32)
    region = np.zeros(array.shape, bool)
    region[2:4, 20:35, 40:70] = True
    array[region] = 255
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 2.0, 6.0))
    volume = Volume(image, Path("scan"))
    mask = make_mask(region, volume, Path("m"), roi="x")
    picture = cut_slices(
        volume, mask, SliceChoice(margin_mm=15, context=0), limits=LIMITS, size_px=60
    ).images[0, :, :, 1]
    bright = picture > 127
    assert abs(int(bright.any(axis=1).sum()) - 30) <= 1
    assert abs(int(bright.any(axis=0).sum()) - 30) <= 1


def test_crop_beyond_the_border_is_black() -> None:
    volume, mask = scan()
    slices = cut(volume, mask, margin_mm=100, context=0)
    assert (slices.images[0, 0] == 0).all()
    assert (slices.images[0, :, 0] == 0).all()
    assert slices.images[0].max() > 100


PARAMS: dict[str, Any] = {"sequences": ["t1", "ct"], "preprocess": {"n4": None}}


def spec(dim: int = 1280, **params: Any) -> FeatureSpec:
    return FeatureSpec(
        modality="radiology",
        dim=dim,
        max_tokens=10,
        extractor=ExtractorSpec(kind="slices", params={**PARAMS, **params}),
    )


@pytest.fixture
def patient(tmp_path: Path, phantom: Any) -> PatientRow:
    sitk.WriteImage(phantom.image, str(tmp_path / "scan.nii.gz"))
    sitk.WriteImage(phantom.mask, str(tmp_path / "mask.nii.gz"))
    names = ("t1", "ct")
    return PatientRow(
        patient_id="p1",
        volumes=dict.fromkeys(names, tmp_path / "scan.nii.gz"),
        masks=dict.fromkeys(names, tmp_path / "mask.nii.gz"),
    )


def test_tokens_are_the_encoder_applied_to_the_pictures(
    patient: PatientRow, tmp_path: Path
) -> None:
    extractor = create_extractor("slices", spec())
    assert isinstance(extractor, SlicesExtractor)
    file = extractor.extract(patient)
    images, names = extractor.images(patient)
    assert file.features.shape == (10, 1280)
    assert images.shape == (10, 224, 224, 3)
    encoder = load_encoder("efficientnet_lite0", {}, "cpu")
    assert np.allclose(encoder.encode(images), file.features, atol=1e-4)
    assert file.coords is not None
    assert file.coords[:, 1].tolist() == [0] * 5 + [1] * 5
    assert names[2] == f"t1 slice {file.coords[2, 0]}"
    write_features(tmp_path / "p1.h5", file)
    assert (read_features(tmp_path / "p1.h5").features == file.features).all()


def test_only_what_matters_changes_the_fingerprint() -> None:
    plain = SlicesExtractor("s", spec()).fingerprint
    same = [
        {"preprocess": {"n4": None, "spacing_mm": 1.0}},
        {"size_px": 224},
        {"settings": {"t1": "mr"}},
    ]
    other = [
        {"choice": {"context": 1}},
        {"choice": {"channels": "replicate"}},
        {"preprocess": {"n4": None, "clip_sd": 4}},
        {"size_px": 192},
        {"sequences": ["ct", "t1"]},
        {"roi": "GTV-1"},
    ]
    assert {SlicesExtractor("x", spec(**params)).fingerprint for params in same} == {plain}
    assert (
        len({SlicesExtractor("s", spec(**params)).fingerprint for params in other} | {plain}) == 7
    )


def test_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="1280"):
        SlicesExtractor("s", spec(dim=2048))
    with pytest.raises(ConfigError, match="no intensity limits"):
        SlicesExtractor("s", spec(preprocess={"intensity": "none"}))
    with pytest.raises(ConfigError):
        SlicesExtractor("s", spec(encoder="resnet51"))
