"""From slides to a bag: pixels, corners, several slides, slides set aside, fingerprint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_slides import GLASS, slide_with_tissue, write_slide

from client.extract.encoders.tile_encoder import load_encoder
from client.extract.kinds.extractor import PROBLEMS, NothingToExtract
from client.extract.slides.slide_table import read_slides
from client.extract.slides.tile_extractor import TileExtractor
from common.cohort.features_h5 import read_features, write_features
from common.cohort.manifest import PatientRow
from common.errors import ConfigError, ErrorCode, ExtractionError, FeatureError
from common.study.study import ExtractorSpec, FeatureSpec


def spec(dim: int = 1280, **params: Any) -> FeatureSpec:
    return FeatureSpec(
        modality="pathology",
        dim=dim,
        max_tokens=64,
        extractor=ExtractorSpec(kind="tiles", params=params),
    )


def extractor(**params: Any) -> TileExtractor:
    return TileExtractor("tiles", spec(**params))


def patient(*slides: Path) -> PatientRow:
    return PatientRow(patient_id="p1", slides=list(slides))


@pytest.fixture(scope="module")
def pixels() -> Any:
    return slide_with_tissue(1000, (0, 448, 900, 448))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, pixels: Any) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "good.tif", pixels, 0.5)


def test_rows_are_the_encoded_pixels_at_their_corners(good: Path, pixels: Any) -> None:
    file = extractor().extract(patient(good))
    assert file.coords is not None
    assert sorted(map(tuple, file.coords.tolist())) == [
        (x, y) for x in (0, 224, 448, 672) for y in (448, 672)
    ]
    cut = np.stack([pixels[y : y + 224, x : x + 224] for x, y in file.coords])
    expected = load_encoder("efficientnet_lite0", {}, "cpu").encode(cut)
    np.testing.assert_array_equal(file.features, expected)
    assert file.attrs["tile_px_level0_0"] == 224
    assert file.attrs["tile_um"] == pytest.approx(112.0)


def test_finer_slide_gives_the_same_tiles(tmp_path: Path, good: Path, pixels: Any) -> None:
    fine = write_slide(tmp_path / "fine.tif", pixels.repeat(2, 0).repeat(2, 1), 0.25)
    coarse, found = extractor().extract(patient(good)), extractor().extract(patient(fine))
    assert found.coords is not None
    assert coarse.coords is not None
    np.testing.assert_array_equal(found.coords, coarse.coords * 2)
    np.testing.assert_allclose(found.features, coarse.features, atol=1e-5)


def test_several_slides_make_one_bag_and_bad_ones_are_set_aside(
    tmp_path: Path, good: Path, pixels: Any
) -> None:
    unknown = write_slide(tmp_path / "unknown.tif", pixels, None)
    glass = write_slide(tmp_path / "glass.tif", np.full((600, 600, 3), GLASS, np.uint8), 0.5)
    fine = write_slide(tmp_path / "fine.tif", pixels.repeat(2, 0).repeat(2, 1), 0.25)
    file = extractor().extract(patient(unknown, good, glass, fine))
    assert file.slide_index is not None
    assert file.slide_index.tolist() == [1] * 8 + [3] * 8
    assert (file.attrs["tile_px_level0_1"], file.attrs["tile_px_level0_3"]) == (224, 448)
    assert "patch_size_level0" not in file.attrs
    problems = json.loads(str(file.attrs[PROBLEMS]))
    assert [problem["code"] for problem in problems] == [
        ErrorCode.SLIDE_WITHOUT_RESOLUTION,
        ErrorCode.EXTRACTION,
    ]
    assert problems[0]["where"].endswith("unknown.tif")
    write_features(tmp_path / "p1.h5", file)
    kept = read_features(tmp_path / "p1.h5")
    assert [(e.file, e.n_tiles) for e in read_slides(kept)] == [("good.tif", 8), ("fine.tif", 8)]
    assert kept.slide_index is not None
    kept.features = kept.features[:3]
    with pytest.raises(FeatureError, match="does not fit the tiles"):
        read_slides(kept)


def test_no_tissue_is_an_outcome_and_a_fault_is_a_fault(tmp_path: Path, pixels: Any) -> None:
    glass = write_slide(tmp_path / "glass.tif", np.full((600, 600, 3), GLASS, np.uint8), 0.5)
    unknown = write_slide(tmp_path / "unknown.tif", pixels, None)
    with pytest.raises(NothingToExtract, match="no tissue"):
        extractor().extract(patient(glass))
    with pytest.raises(ExtractionError) as caught:
        extractor().extract(patient(glass, unknown))
    assert caught.value.code == ErrorCode.SLIDE_WITHOUT_RESOLUTION


def test_rejected_tiles_are_counted(tmp_path: Path, pixels: Any) -> None:
    inked = pixels.copy()
    inked[448:896, 0:448] = (20, 150, 60)
    file = extractor().extract(patient(write_slide(tmp_path / "inked.tif", inked, 0.5)))
    assert len(file.features) == 4
    assert read_slides(file)[0].rejected == {"pen": 4}
    inked[:] = (20, 150, 60)
    with pytest.raises(NothingToExtract, match="no tissue") as caught:
        extractor().extract(patient(write_slide(tmp_path / "ink.tif", inked, 0.5)))
    assert "16 pen" in caught.value.why


def test_max_tiles_and_stain(good: Path) -> None:
    assert len(extractor(max_tiles=3).extract(patient(good)).features) == 3
    stained = extractor(stain="macenko").extract(patient(good))
    assert stained.features.shape == (8, 1280)


def test_fingerprint_is_of_what_matters() -> None:
    base = extractor().fingerprint
    digest = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert extractor(sha256=digest, tile_px=224).fingerprint == base
    assert extractor(um_per_px=0.25).fingerprint != base
    assert extractor(tissue={"threshold": "otsu"}).fingerprint != base
    assert extractor(quality={"max_pen": 0.5}).fingerprint != base


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ({"tile": 224}, "tile: unknown key"),
        ({"quality": {"min_tissue": 2}}, r"quality.min_tissue"),
        ({"encoder": "nobody"}, "unknown encoder"),
        ({"dim": 512}, "the study says 512"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        extractor(**params)


@pytest.mark.shared_data
def test_real_slide(shared_data: Path) -> None:
    slide = shared_data / "wsi_small" / "CMU-1-Small-Region.svs"
    file = extractor(max_tiles=12).extract(patient(slide))
    assert file.features.shape == (12, 1280)
    assert np.isfinite(file.features).all()
    assert file.features.std(axis=0).mean() > 0.05
