"""Pictures: right place, right size, the same bytes again; what cannot be shown is said."""

from pathlib import Path

import numpy as np
import pytest
from painted_slides import slide_with_tissue, write_slide
from PIL import Image
from small_site import SIDE, tile_bag, tile_corners

from client.explain import pictures
from client.explain.attribution import Attribution
from client.explain.pictures import BagView, bag_pictures
from client.explain.slide_picture import tile_image
from client.explain.slide_tiles import SlideTiles
from client.extract.volumes.slices import SlicesExtractor
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.errors import ExtractionError
from common.study.study import FeatureSpec

TILES = FeatureSpec(modality="pathology", dim=5, max_tokens=40)
SLICES = FeatureSpec.model_validate(
    {
        "modality": "radiology",
        "dim": 5,
        "max_tokens": 6,
        "extractor": {"kind": "slices", "params": {"sequences": ["t1", "t2"]}},
    }
)


def attribution(feature: str, tokens: int, task: str = "response") -> Attribution:
    values = np.random.default_rng(1).normal(size=(tokens, 5)).astype(np.float32)
    return Attribution(task, 0.4, 0.1, {feature: values}, 0.0, 64)


def tile_view(folder: Path, names: list[str], attention: bool = True) -> BagView:
    slides = []
    for name in names:
        slides.append(folder / name)
        slides[-1].parent.mkdir(parents=True, exist_ok=True)
        write_slide(slides[-1], slide_with_tissue(512, (24, 24, 440, 400)), 0.5)
    file = tile_bag([slide.name for slide in slides], 12, np.random.default_rng(0))
    kept = np.arange(0, len(file.features), 2)
    return BagView(
        name="tiles",
        spec=TILES,
        row=PatientRow(patient_id="P1", slides=slides),
        file=file,
        where="P1.h5",
        kept=kept,
        attention=np.full(len(kept), 1 / len(kept)) if attention else None,
    )


def draw(view: BagView, folder: Path, attributions: list[Attribution]) -> tuple[list[str], set]:
    folder.mkdir(exist_ok=True)
    notes = bag_pictures(view, attributions, folder, synthetic=True)
    return notes, {file.name for file in folder.iterdir()}


def test_a_tile_covers_the_pixels_of_its_place():
    tiles = SlideTiles(Path("a.tif"), tile_corners(8), SIDE, np.arange(8), 8)
    image = tile_image((256, 256), (512, 512), tiles, np.arange(8.0))
    for t, (x, y) in enumerate(tile_corners(8) // 2):
        assert (image[y : y + SIDE // 2, x : x + SIDE // 2] == t).all()
    assert np.isnan(image).sum() == 256 * 256 - 8 * (SIDE // 2) ** 2


def test_one_picture_and_one_geojson_a_slide(tmp_path):
    view = tile_view(tmp_path, ["one.tif", "two.tif"])
    notes, names = draw(view, tmp_path / "out", [attribution("tiles", 12)])
    assert notes == []
    assert names == {f"tiles_{s}.{e}" for s in ("one", "two") for e in ("png", "geojson")}
    with Image.open(tmp_path / "out" / "tiles_one.png") as picture:
        assert picture.width > 1000


def test_slides_that_share_a_name_do_not_overwrite_each_other(tmp_path):
    view = tile_view(tmp_path, ["x/one.tif", "y/one.tif"])
    _notes, names = draw(view, tmp_path / "out", [])
    assert {n for n in names if n.endswith("png")} == {"tiles_one_1.png", "tiles_one_2.png"}


def test_equal_numbers_give_equal_bytes(tmp_path):
    view = tile_view(tmp_path, ["one.tif"])
    for name in ("a", "b"):
        draw(view, tmp_path / name, [attribution("tiles", 6)])
    first, second = ((tmp_path / n / "tiles_one.png").read_bytes() for n in ("a", "b"))
    assert first == second


def test_a_model_without_attention_shows_attribution(tmp_path):
    view = tile_view(tmp_path, ["one.tif"], attention=False)
    draw(view, tmp_path / "out", [attribution("tiles", 6)])
    text = (tmp_path / "out" / "tiles_one.geojson").read_text()
    assert '"attribution to response"' in text
    assert '"attention"' not in text


def test_a_slide_that_broke_since_is_a_note_and_not_an_end(tmp_path):
    view = tile_view(tmp_path, ["one.tif"])
    view.row.slides[0].write_bytes(b"no slide any more")
    notes, names = draw(view, tmp_path / "out", [])
    assert len(notes) == 1
    assert "TB310" in notes[0]
    assert names == set()


class Fake:
    """Stands for the slice extractor: two sequences, three slices each."""

    fingerprint = "a" * 64

    def __init__(self, n: int = 6) -> None:
        self.n = n

    def images(self, row):
        names = [f"{('t1', 't2')[k // 3]} slice {10 + k}" for k in range(self.n)]
        return np.full((self.n, 32, 32, 3), 90, np.uint8), names


def slice_view(**attrs) -> BagView:
    file = FeatureFile(np.ones((6, 5), np.float32), attrs=attrs)
    row = PatientRow(patient_id="P1")
    return BagView("slices", SLICES, row, file, "P1.h5", np.arange(6), np.full(6, 1 / 6))


def test_slices_are_drawn_as_the_encoder_saw_them(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "create_extractor", lambda name, spec: Fake())
    view = slice_view(extractor_fingerprint="a" * 64)
    notes, names = draw(view, tmp_path / "out", [attribution("slices", 6, "survival")])
    assert (notes, names) == ([], {"slices.png"})


@pytest.mark.parametrize(
    ("n", "fingerprint", "said"),
    [(5, "a" * 64, "scans changed"), (6, "b" * 64, "another extractor")],
)
def test_pictures_of_other_scans_are_not_shown(tmp_path, monkeypatch, n, fingerprint, said):
    monkeypatch.setattr(pictures, "create_extractor", lambda name, spec: Fake(n))
    view = slice_view(extractor_fingerprint=fingerprint)
    notes, names = draw(view, tmp_path / "out", [])
    assert said in notes[0]
    assert names == set()


def test_an_unreadable_scan_is_a_note(tmp_path, monkeypatch):
    class Broken(Fake):
        def images(self, row):
            raise ExtractionError("the volume is cut short", where="t1.nii.gz")

    monkeypatch.setattr(pictures, "create_extractor", lambda name, spec: Broken())
    notes, _names = draw(slice_view(extractor_fingerprint="a" * 64), tmp_path / "out", [])
    assert notes == ["slices: [TB310] the volume is cut short (t1.nii.gz)"]


def test_the_slice_extractor_shows_images():
    assert hasattr(SlicesExtractor, "images")
