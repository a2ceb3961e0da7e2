"""List the slides behind a bag of tiles: attribute `slides` of a feature file, as JSON.

Several slides of one patient lie in one bag, one after the other; `slide_index` of the feature
file gives the slide of each tile.
"""

import json
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.cohort.features_h5 import FeatureFile
from common.errors import FeatureError

SLIDES = "slides"


@dataclass(frozen=True)
class SlideEntry:
    """One slide of a bag.

    Attributes:
        index: Position among the patient's slides in the manifest.
        file: Name of the slide file, without its folder.
        n_tiles: Rows of the bag that come from it.
        um_per_px: Level-0 resolution.
        tile_side_px: Side of a tile, level-0 pixels.
        width_px: Level-0 width.
        height_px: Level-0 height.
        rejected: Tiles thrown away, by reason.
    """

    index: int
    file: str
    n_tiles: int
    um_per_px: float
    tile_side_px: int
    width_px: int
    height_px: int
    rejected: dict[str, int] = field(default_factory=dict)


def slides_attribute(entries: list[SlideEntry]) -> str:
    """Return the value of the attribute `slides`."""
    return json.dumps([asdict(entry) for entry in entries], sort_keys=True)


def read_slides(file: FeatureFile, where: str = "") -> list[SlideEntry]:
    """Return the slides of a bag; empty for files of other programs.

    Raises:
        FeatureError: The attribute is damaged or does not fit the bag.
    """
    text = file.attrs.get(SLIDES)
    if text is None:
        return []
    try:
        entries = [SlideEntry(**entry) for entry in json.loads(str(text))]
        total = sum(entry.n_tiles for entry in entries)
    except (ValueError, TypeError) as error:
        raise FeatureError(
            "the list of slides in a feature file cannot be read",
            where=where,
            why=" ".join(str(error).split()),
            cure="extract this patient again",
        ) from error
    if total != len(file.features):
        raise FeatureError(
            "the list of slides does not fit the tiles of the feature file",
            where=where,
            why=f"the slides count {total} tiles, the file holds {len(file.features)}",
            cure="extract this patient again",
        )
    return entries


def slide_index(entries: list[SlideEntry]) -> NDArray[np.int64]:
    """Return the position of the slide of each tile among the patient's slides, (T,) int64.

    Example:
        >>> a = SlideEntry(0, "a.svs", 2, 0.5, 224, 1000, 1000)
        >>> b = SlideEntry(2, "c.svs", 1, 0.25, 448, 1000, 1000)
        >>> slide_index([a, b]).tolist()
        [0, 0, 2]
    """
    counts = [entry.n_tiles for entry in entries]
    return np.repeat(np.array([entry.index for entry in entries], np.int64), counts)


def tile_side_attribute(index: int) -> str:
    """Return the attribute that holds the side of a tile of one slide, level-0 pixels."""
    return f"tile_px_level0_{index}"
