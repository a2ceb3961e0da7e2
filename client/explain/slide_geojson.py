"""Export tiles as QuPath objects (GeoJSON), with attention and attribution as measurements."""

import json
from collections.abc import Sequence
from pathlib import Path

from client.explain.figure import colours_of
from client.explain.layers import Layer
from client.explain.slide_tiles import SlideTiles
from common.optional import require
from common.storage.atomic_file import write_text

_BOUNDS = ("openslide.bounds-x", "openslide.bounds-y", "openslide.bounds-width")


def write_geojson(
    path: Path, tiles: SlideTiles, layers: Sequence[Layer], *, origin_px: tuple[int, int] = (0, 0)
) -> None:
    """Write one square per tile, in level-0 pixels of the slide as QuPath shows it.

    Each is a QuPath `tile` object, coloured by the first layer, with one measurement a layer and
    the percentile rank of attention. Drag the file onto the open slide; "Measurement maps"
    recolours by another measurement.

    Args:
        path: Target; written whole or not at all.
        tiles: Where the tiles lie.
        layers: What to say of them, each (T,); at least one.
        origin_px: Corner of the slide in QuPath, in level-0 pixels; see `qupath_origin`.
    """
    colours = colours_of(layers[0])
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    _square(int(x) - origin_px[0], int(y) - origin_px[1], tiles.side_px)
                ],
            },
            "properties": {
                "objectType": "tile",
                "name": f"tile {int(tiles.tokens[t]) + 1}",
                "color": colours[t],
                "measurements": _measurements(layers, t),
            },
        }
        for t, (x, y) in enumerate(tiles.corners)
    ]
    write_text(path, json.dumps({"type": "FeatureCollection", "features": features}))


def qupath_origin(slide: Path) -> tuple[int, int]:
    """Return the level-0 pixel that QuPath shows at (0, 0).

    QuPath crops slides that state bounds of what was scanned (MRXS and others) to them, unless
    opened with `--no-crop`; for all other slides this is (0, 0).

    Raises:
        ConfigError: openslide is not installed (extra `pathology`).
    """
    openslide = require("openslide", extra="pathology")
    with openslide.OpenSlide(str(slide)) as reader:
        bounds = [reader.properties.get(name) for name in (*_BOUNDS, "openslide.bounds-height")]
    try:
        x, y, _width, _height = (int(value) for value in bounds)
    except (TypeError, ValueError):
        return 0, 0
    return x, y


def _measurements(layers: Sequence[Layer], t: int) -> dict[str, float]:
    measurements: dict[str, float] = {}
    for layer in layers:
        measurements[layer.name] = float(layer.values[t])
        if not layer.signed:
            measurements[f"{layer.name} percentile"] = round(100 * float(layer.shown()[t]), 2)
    return measurements


def _square(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
