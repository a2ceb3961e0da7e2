"""Locate the tiles of a bag: the slide each lies on, and how large they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.extract.slides.slide_table import SlideEntry, read_slides
from common.cohort.features_h5 import FeatureFile
from common.errors import FeatureError

FOREIGN_SIDE = "patch_size_level0"
"""Attribute in which CLAM and TRIDENT state the side of a patch, level-0 pixels."""


@dataclass(frozen=True)
class SlideTiles:
    """The tiles of one slide that the model read.

    Attributes:
        slide: The slide file.
        corners: (T, 2) upper left corners x, y in level-0 pixels.
        side_px: Side of a tile in level-0 pixels.
        tokens: (T,) position of each tile among the tokens the model read.
        n_tiles: Tiles of the slide in the feature file; more than T where the bag was thinned.
    """

    slide: Path
    corners: npt.NDArray[np.int64]
    side_px: int
    tokens: npt.NDArray[np.int64]
    n_tiles: int


def tiles_by_slide(
    file: FeatureFile, kept: npt.NDArray[np.int64], slides: Sequence[Path], *, where: str
) -> list[SlideTiles]:
    """Return the tiles of each slide that the model read.

    Args:
        file: The patient's bag; ours, or one of CLAM or TRIDENT made of a single slide.
        kept: (T,) rows of the file that the model read.
        slides: The patient's slides in the manifest.
        where: The feature file, for messages.

    Raises:
        FeatureError: The file does not say where its tiles lie, or names a slide that is not in
            the manifest.
    """
    if file.coords is None:
        raise _nowhere("the feature file holds no coordinates", where)
    entries = read_slides(file, where) or [_foreign_entry(file, slides, where)]
    on_slide = np.zeros(len(file.coords), np.int64) if len(entries) == 1 else file.slide_index
    if on_slide is None:
        raise _nowhere("the feature file does not say which tile is of which slide", where)
    groups = []
    for entry in entries:
        here = on_slide == (0 if len(entries) == 1 else entry.index)
        tokens = np.flatnonzero(here[kept])
        groups.append(
            SlideTiles(
                slide=_slide_of(entry, slides, where),
                corners=file.coords[kept[tokens]],
                side_px=entry.tile_side_px,
                tokens=tokens,
                n_tiles=int(here.sum()),
            )
        )
    return [tiles for tiles in groups if len(tiles.tokens)]


def _slide_of(entry: SlideEntry, slides: Sequence[Path], where: str) -> Path:
    """Return the slide by its name; its place in the manifest may have changed."""
    matches = [slide for slide in slides if slide.name == entry.file]
    if entry.index < len(slides) and slides[entry.index] in matches:
        return slides[entry.index]
    if len(matches) != 1:
        raise _nowhere(f"the manifest does not name the slide {entry.file} of the features", where)
    return matches[0]


def _foreign_entry(file: FeatureFile, slides: Sequence[Path], where: str) -> SlideEntry:
    side = file.attrs.get(FOREIGN_SIDE)
    if not isinstance(side, int | float) or side <= 0:
        raise _nowhere(f"the feature file does not say how large a tile is ({FOREIGN_SIDE})", where)
    if len(slides) != 1:
        raise _nowhere(f"{len(slides)} slides in the manifest, unclear which was read", where)
    return SlideEntry(0, slides[0].name, len(file.features), 0.0, int(side), 0, 0)


def _nowhere(what: str, where: str) -> FeatureError:
    return FeatureError(
        what,
        where=where,
        why="without it, tiles cannot be drawn on a slide",
        cure="extract this patient again with `tumorboard site extract`",
    )
