import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from painted_slides import slide_with_tissue, write_slide
from small_site import SIDE, tile_corners

from client.explain import slide_geojson
from client.explain.layers import Layer
from client.explain.slide_geojson import qupath_origin, write_geojson
from client.explain.slide_tiles import SlideTiles

CORNERS = tile_corners(9)
LAYERS = [
    Layer("attention", np.linspace(0.02, 0.2, 9), "low", "high", signed=False),
    Layer("attribution to risk", np.linspace(-1, 1, 9), "lowers", "raises", signed=True),
]


def written(path: Path, **keys) -> list[dict]:
    tiles = SlideTiles(Path("a.tif"), CORNERS, SIDE, np.arange(9), 12)
    write_geojson(path, tiles, LAYERS, **keys)
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def test_squares_are_the_tiles_in_level_0_pixels(tmp_path):
    features = written(tmp_path / "a.geojson")
    assert len(features) == 9
    for feature, (x, y) in zip(features, CORNERS.tolist(), strict=True):
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        right, below = x + SIDE, y + SIDE
        assert ring == [[x, y], [right, y], [right, below], [x, below], [x, y]]


def test_measurements_are_the_layers(tmp_path):
    features = written(tmp_path / "a.geojson")
    for t, feature in enumerate(features):
        said = feature["properties"]["measurements"]
        assert said["attention"] == LAYERS[0].values[t]
        assert said["attention percentile"] == pytest.approx(100 * (t + 1) / 9, abs=0.01)
        assert said["attribution to risk"] == LAYERS[1].values[t]
        assert feature["properties"]["objectType"] == "tile"
        assert all(0 <= channel <= 255 for channel in feature["properties"]["color"])


def test_shifted_to_the_corner_qupath_shows(tmp_path):
    (ring,) = written(tmp_path / "a.geojson", origin_px=(10, 20))[0]["geometry"]["coordinates"]
    assert ring[0] == [CORNERS[0, 0] - 10, CORNERS[0, 1] - 20]


def test_a_slide_without_bounds_is_not_shifted(tmp_path):
    slide = write_slide(tmp_path / "a.tif", slide_with_tissue(256, (20, 20, 200, 200)), 0.5)
    assert qupath_origin(slide) == (0, 0)


@pytest.mark.parametrize(
    ("stated", "origin"),
    [
        ({"x": "300", "y": "40", "width": "900", "height": "800"}, (300, 40)),
        ({"x": "300", "y": "40", "width": "900"}, (0, 0)),  # QuPath crops with all four only
        ({"x": "much", "y": "40", "width": "900", "height": "800"}, (0, 0)),
    ],
)
def test_bounds_of_a_scanner_shift_as_in_qupath(monkeypatch, stated, origin):
    properties = {f"openslide.bounds-{name}": value for name, value in stated.items()}
    opened = nullcontext(SimpleNamespace(properties=properties))
    fake = SimpleNamespace(OpenSlide=lambda path: opened)
    monkeypatch.setattr(slide_geojson, "require", lambda module, extra: fake)
    assert qupath_origin(Path("a.mrxs")) == origin
