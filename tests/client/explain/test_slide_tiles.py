import json
from pathlib import Path

import numpy as np
import pytest
from small_site import SIDE, tile_bag, tile_corners

from client.data.bags import token_sample
from client.explain.slide_tiles import tiles_by_slide
from common.cohort.features_h5 import FeatureFile
from common.errors import FeatureError

A, B = Path("slides/a.tif"), Path("slides/b.tif")


@pytest.fixture
def bag() -> FeatureFile:
    return tile_bag(["a.tif", "b.tif"], 10, np.random.default_rng(0))


def everything(file: FeatureFile) -> np.ndarray:
    return np.arange(len(file.features))


def test_each_slide_has_its_own_tiles(bag):
    first, second = tiles_by_slide(bag, everything(bag), [A, B], where="p.h5")
    assert (first.slide, second.slide) == (A, B)
    assert first.side_px == SIDE
    np.testing.assert_array_equal(first.corners, tile_corners(10))
    np.testing.assert_array_equal(second.tokens, np.arange(10, 20))


def test_a_thinned_bag_keeps_the_places_of_what_was_read(bag):
    kept = token_sample("tiles", "p", 20, 7)
    found = tiles_by_slide(bag, kept, [A, B], where="p.h5")
    assert sum(len(tiles.tokens) for tiles in found) == 7
    for tiles in found:
        assert tiles.n_tiles == 10
        np.testing.assert_array_equal(tiles.corners, bag.coords[kept[tiles.tokens]])


def test_slides_are_found_by_name_when_the_manifest_changed(bag):
    first, second = tiles_by_slide(bag, everything(bag), [B, Path("c.tif"), A], where="p.h5")
    assert (first.slide, second.slide) == (A, B)


def test_a_set_aside_first_slide_does_not_shift_the_others():
    bag = tile_bag(["a.tif", "b.tif"], 4, np.random.default_rng(0))
    only_b = FeatureFile(
        bag.features[4:],
        bag.coords[4:],
        {"slides": json.dumps(json.loads(bag.attrs["slides"])[1:])},
        bag.slide_index[4:],
    )
    (tiles,) = tiles_by_slide(only_b, everything(only_b), [A, B], where="p.h5")
    assert tiles.slide == B
    np.testing.assert_array_equal(tiles.corners, tile_corners(4))


def test_a_bag_of_clam_on_one_slide_is_placed():
    file = FeatureFile(np.ones((3, 5), np.float32), tile_corners(3), {"patch_size_level0": 512})
    (tiles,) = tiles_by_slide(file, everything(file), [A], where="p.h5")
    assert (tiles.slide, tiles.side_px, tiles.n_tiles) == (A, 512, 3)


@pytest.mark.parametrize(
    ("slides", "attrs", "said"),
    [
        ([A], {}, "how large a tile is"),
        ([A, B], {"patch_size_level0": 512}, "2 slides"),
        ([], {"patch_size_level0": 512}, "0 slides"),
    ],
)
def test_what_cannot_be_placed_is_said(slides, attrs, said):
    file = FeatureFile(np.ones((3, 5), np.float32), tile_corners(3), attrs)
    with pytest.raises(FeatureError, match=said):
        tiles_by_slide(file, everything(file), slides, where="p.h5")


def test_a_slide_that_left_the_manifest_is_named(bag):
    with pytest.raises(FeatureError, match=r"b\.tif"):
        tiles_by_slide(bag, everything(bag), [A], where="p.h5")


def test_without_coordinates_nothing_is_placed():
    file = FeatureFile(np.ones((3, 5), np.float32))
    with pytest.raises(FeatureError, match="coordinates"):
        tiles_by_slide(file, everything(file), [A], where="p.h5")
