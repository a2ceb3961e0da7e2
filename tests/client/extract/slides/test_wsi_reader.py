"""Resolution, pixels and damage of slides, against files with known pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from painted_slides import write_slide

from client.extract.slides.wsi_reader import SlideReader, resolution_um_per_px
from common.errors import ErrorCode, ExtractionError

ANYWHERE = Path("slide.tif")


@given(um=st.floats(0.06, 9.0), unit=st.sampled_from(["inch", "centimeter"]))
def test_resolution_from_tiff_tags(um: float, unit: str) -> None:
    per_unit = {"inch": 25400, "centimeter": 10000}[unit] / um
    tags = {
        "tiff.XResolution": str(per_unit),
        "tiff.YResolution": str(per_unit),
        "tiff.ResolutionUnit": unit,
    }
    assert resolution_um_per_px(tags, ANYWHERE) == pytest.approx(um, rel=1e-9)


def test_stated_resolution_goes_before_tags() -> None:
    tags = {
        "openslide.mpp-x": "0.25",
        "openslide.mpp-y": "0.25",
        "tiff.XResolution": "72",
        "tiff.YResolution": "72",
        "tiff.ResolutionUnit": "inch",
    }
    assert resolution_um_per_px(tags, ANYWHERE) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("tags", "what"),
    [
        ({}, "does not state"),
        ({"openslide.objective-power": "40"}, "does not state"),
        ({"openslide.mpp-x": "0.25"}, "does not state"),
        ({"openslide.mpp-x": "nan", "openslide.mpp-y": "0.25"}, "does not state"),
        ({"openslide.mpp-x": "0", "openslide.mpp-y": "0"}, "does not state"),
        (
            {"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"},
            "no slide",
        ),
        ({"tiff.XResolution": "40000", "tiff.YResolution": "40000"}, "does not state"),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, "not square"),
    ],
)
def test_resolution_is_never_guessed(tags: dict[str, str], what: str) -> None:
    with pytest.raises(ExtractionError, match=what) as caught:
        resolution_um_per_px(tags, ANYWHERE)
    assert caught.value.code == ErrorCode.SLIDE_WITHOUT_RESOLUTION


@pytest.mark.parametrize("levels", [1, 3])
def test_areas_are_averages_of_level_0(tmp_path: Path, levels: int) -> None:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)  # every level is exact
    path = write_slide(tmp_path / "s.tif", pixels, 0.25, levels)
    with SlideReader(path) as slide:
        assert (slide.width_px, slide.height_px) == (384, 256)
        assert slide.um_per_px == pytest.approx(0.25, rel=1e-4)
        np.testing.assert_array_equal(slide.read(8, 16, 40, 24, (40, 24)), pixels[16:40, 8:48])
        np.testing.assert_array_equal(slide.read(64, 32, 64, 64, (8, 8)), blocks[4:12, 8:16])
        np.testing.assert_array_equal(slide.overview(2.0), blocks)


def test_outside_the_slide_is_white(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", np.zeros((64, 64, 3), np.uint8), 0.5)
    with SlideReader(path) as slide:
        area = slide.read(32, 32, 64, 64, (64, 64))
    assert (area[:32, :32] == 0).all()
    assert (area[32:] == 255).all()
    assert (area[:, 32:] == 255).all()


def test_overview_in_stripes_equals_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    path = write_slide(tmp_path / "s.tif", pixels, 0.5)
    with SlideReader(path) as slide:
        whole = slide.overview(2.0)
        monkeypatch.setattr("client.extract.slides.wsi_reader._STRIPE_PX", 256 * 16)
        np.testing.assert_array_equal(slide.overview(2.0), whole)


def test_damaged_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="does not exist"):
        SlideReader(tmp_path / "no.svs")
    text = tmp_path / "text.svs"
    text.write_text("not a slide")
    with pytest.raises(ExtractionError, match="not a slide that OpenSlide can read"):
        SlideReader(text)
    unknown = write_slide(tmp_path / "u.tif", np.zeros((64, 64, 3), np.uint8), None)
    with pytest.raises(ExtractionError) as caught:
        SlideReader(unknown)
    assert caught.value.code == ErrorCode.SLIDE_WITHOUT_RESOLUTION


@pytest.mark.shared_data
def test_damage_inside_a_real_slide_is_named(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "wsi_small" / "CMU-1-Small-Region.svs"
    with SlideReader(source) as slide:
        assert slide.um_per_px == pytest.approx(0.499)
        assert (slide.width_px, slide.height_px) == (2220, 2967)
    data = bytearray(source.read_bytes())
    data[20_000:600_000] = bytes(580_000)
    broken = tmp_path / "broken.svs"
    broken.write_bytes(data)
    with pytest.raises(ExtractionError, match="damaged"), SlideReader(broken) as slide:
        slide.overview(4.0)


@pytest.mark.shared_data
def test_real_frames_state_the_resolution_of_their_table(shared_data: Path) -> None:
    rows = (shared_data / "he_patches" / "patches.csv").read_text().splitlines()
    names = rows[0].split(",")
    table = [dict(zip(names, row.split(","), strict=True)) for row in rows[1:]]
    tiffs = [row for row in table if row["file"].endswith(".tif")]
    assert len(tiffs) == 28
    for row in tiffs:
        with SlideReader(shared_data / "he_patches" / row["file"]) as slide:
            assert slide.um_per_px == pytest.approx(float(row["mpp"]), rel=1e-3)
