from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.extract.volumes.volume import Volume, make_mask
from client.extract.volumes.volume_preprocess import (
    BiasCorrection,
    Preprocessing,
    body_mask,
    correct_and_scale,
    resample_around,
)
from client.extract.volumes.volume_reader import read_mask, read_volume
from common.errors import ExtractionError

sitk = pytest.importorskip("SimpleITK")


def as_volume(array: np.ndarray, spacing: tuple[float, ...] = (1.5, 1.5, 3.0)) -> Volume:
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing(spacing)
    return Volume(image, Path("phantom"))


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    return i**2 + j**2 + k**2 < radius**2


@pytest.mark.shared_data
@pytest.mark.parametrize("case", ["brain1", "brain2", "breast1"])
@pytest.mark.parametrize("spacing_mm", [2.0, 0.9])
def test_resampling_is_that_of_pyradiomics(shared_data: Path, case: str, spacing_mm: float) -> None:
    operations = pytest.importorskip("radiomics.imageoperations")
    folder = shared_data / "pyradiomics_reference"
    volume = read_volume(folder / f"{case}_image.nrrd")
    mask = read_mask(folder / f"{case}_label.nrrd", volume)
    image, region = resample_around(volume, mask, spacing_mm)
    other, other_region = operations.resampleImage(
        volume.image,
        mask.image,
        resampledPixelSpacing=[spacing_mm] * 3,
        interpolator="sitkBSpline",
        padDistance=5,
        label=1,
    )
    assert image.GetOrigin() == pytest.approx(other.GetOrigin(), abs=1e-9)
    assert (sitk.GetArrayFromImage(region) == sitk.GetArrayFromImage(other_region)).all()
    assert np.allclose(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(other), atol=1e-3)


def test_region_that_falls_between_voxels() -> None:
    volume = as_volume(np.random.default_rng(0).normal(size=(12, 30, 30)), (1.0, 1.0, 1.0))
    tiny = np.zeros((12, 30, 30), bool)
    tiny[5:7, 14:16, 15:17] = True
    mask = make_mask(tiny, volume, Path("m"), roi="x")
    with pytest.raises(ExtractionError, match="vanishes"):
        resample_around(volume, mask, 8.0)


def test_zscore_does_not_depend_on_scanner_units() -> None:
    rng = np.random.default_rng(1)
    shape = (20, 40, 40)
    tissue = np.where(ball(shape, 15), 200 + rng.normal(0, 20, shape), 0)
    settings = Preprocessing()
    first = correct_and_scale(as_volume(tissue), settings).array
    second = correct_and_scale(as_volume(tissue * 7.3 + 55), settings).array
    assert np.allclose(first, second, atol=1e-2)
    assert np.abs(first).max() <= 300
    inside = first[ball(shape, 14)]
    assert abs(inside.mean()) < 5
    assert inside.std() == pytest.approx(100, rel=0.05)


def test_body_keeps_dark_muscle_beside_bright_fat_and_fills_holes() -> None:
    shape = (20, 60, 60)
    rng = np.random.default_rng(2)
    scan = np.abs(rng.normal(0, 4, shape))
    scan[ball(shape, 28)] = 1000
    scan[ball(shape, 22)] = 200
    scan[ball(shape, 5)] = 0
    body = sitk.GetArrayFromImage(body_mask(as_volume(scan).image)) > 0
    assert (body == ball(shape, 28)).mean() > 0.999


def test_window_keeps_hounsfield_units() -> None:
    values = np.linspace(-1000, 1000, 8 * 8 * 8).reshape(8, 8, 8)
    settings = Preprocessing(intensity="window", window=(-160, 240))
    array = correct_and_scale(as_volume(values), settings).array
    kept = (values > -160) & (values < 240)
    assert np.allclose(array[kept], values[kept], atol=1e-3)
    assert (array.min(), array.max()) == (-160, 240)
    assert settings.limits == (-160, 240)


def test_n4_removes_a_known_field() -> None:
    shape = (24, 64, 64)
    rng = np.random.default_rng(3)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    head = ball(shape, 30)
    tissue = np.where(head, np.where(ball(shape, 18), 300.0, 450.0), 0)
    tissue += head * rng.normal(0, 6, shape)
    field = np.exp(0.35 * i - 0.25 * j * j + 0.2 * k)
    plain = Preprocessing(intensity="none")
    n4 = Preprocessing(intensity="none", n4=BiasCorrection(shrink=3, iterations=[12, 12]))
    spread = {}
    for name, settings in (("before", plain), ("after", n4)):
        array = correct_and_scale(as_volume(tissue * field), settings).array
        core = array[ball(shape, 17)]
        spread[name] = core.std() / core.mean()
    assert spread["before"] > 0.14
    assert spread["after"] < 0.4 * spread["before"]


def test_constant_and_empty_volumes_have_no_contrast() -> None:
    for array in (np.zeros((8, 8, 8)), np.full((8, 8, 8), 5.0)):
        for n4 in (None, BiasCorrection()):
            with pytest.raises(ExtractionError, match="no contrast"):
                correct_and_scale(as_volume(array), Preprocessing(n4=n4))


def test_input_is_left_as_it_was(phantom: Any) -> None:
    volume = Volume(sitk.Cast(phantom.image, sitk.sitkFloat32), Path("p"))
    before = volume.array.copy()
    correct_and_scale(volume, Preprocessing(n4=BiasCorrection()))
    assert (volume.array == before).all()
