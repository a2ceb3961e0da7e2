import cv2
import numpy as np
import openslide
import pytest
import tifffile

from common.errors import ConfigError
from simulations.synthetic.pyramid_tiff import write_pyramid

APERIO = "Aperio Image Library v0 synthetic\r\n600x512|AppMag = 20|MPP = 0.45"


@pytest.fixture(scope="module")
def pixels():
    noise = np.random.default_rng(0).integers(0, 255, (512, 600, 3), dtype=np.uint8)
    tint = np.array([60, 0, -60])
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 6) + tint, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("description", "suffix"), [("plain", ".tif"), (APERIO, ".svs")])
def test_openslide_reads_resolution_levels_and_pixels(tmp_path, pixels, description, suffix):
    path = tmp_path / f"slide{suffix}"
    write_pyramid(path, pixels, um_per_px=0.45, description=description)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((600, 512), (150, 128))
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.45, 1e-4)
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]) == pytest.approx(0.45, 1e-4)
        read = np.asarray(slide.read_region((300, 200), 0, (256, 256)))[..., :3].astype(int)
        whole = np.asarray(slide.read_region((0, 0), 1, (150, 128)))[..., :3].astype(int)
    assert np.abs(read - pixels[200:456, 300:556]).mean() < 4
    small = cv2.resize(pixels, (150, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(whole - small).mean() < 6


def test_another_reader_sees_the_declared_tags(tmp_path, pixels):
    path = tmp_path / "slide.tif"
    write_pyramid(path, pixels, um_per_px=0.5, description="plain")
    with tifffile.TiffFile(path) as tiff:
        assert [page.shape for page in tiff.pages] == [(512, 600, 3), (128, 150, 3)]
        first, second = tiff.pages
        assert first.is_tiled
        assert first.tags["Compression"].value == 7
        assert first.tags["XResolution"].value == (20_000, 1)
        assert second.tags["XResolution"].value == (5_000, 1)
        assert second.is_reduced


def test_a_slide_can_lack_its_resolution(tmp_path, pixels):
    path = tmp_path / "slide.tif"
    write_pyramid(path, pixels, um_per_px=None, description="plain")
    with openslide.OpenSlide(path) as slide:
        assert openslide.PROPERTY_NAME_MPP_X not in slide.properties


def test_odd_sizes_are_refused(tmp_path, pixels):
    with pytest.raises(ConfigError, match="divide"):
        write_pyramid(tmp_path / "s.tif", pixels[:510], um_per_px=0.5, description="plain")
    assert not list(tmp_path.iterdir())
