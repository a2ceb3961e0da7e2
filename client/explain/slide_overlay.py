"""Attention over tiles, drawn on the slide (PNG) and as QuPath objects (GeoJSON)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.atomic_file import whole_or_nothing
from common.optional import require

THUMBNAIL_PX = 1600


def percentile_ranks(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (T,) ranks in (0, 1]; equal weights share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(weights) / len(weights), dtype=np.float64)


def write_geojson(
    path: Path,
    coords: npt.NDArray[np.int64],
    tile_px: float,
    weights: npt.NDArray[np.float64],
    *,
    label: str,
) -> None:
    """Write one polygon a tile, in level-0 pixels, for QuPath.

    Args:
        path: Target; written whole or not at all.
        coords: (T, 2) upper left corners, level-0 pixels (x, y).
        tile_px: Edge of a tile in level-0 pixels.
        weights: (T,) attention.
        label: Name of the measurement shown in QuPath.
    """
    ranks = percentile_ranks(weights)
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [_square(int(x), int(y), tile_px)]},
            "properties": {
                "objectType": "detection",
                "classification": {"name": label, "color": _colour(float(rank))},
                "measurements": {
                    f"{label}: attention": float(weight),
                    f"{label}: percentile": float(rank),
                },
            },
        }
        for (x, y), weight, rank in zip(coords, weights, ranks, strict=True)
    ]
    with whole_or_nothing(path) as partial:
        partial.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def write_overlay(
    path: Path,
    slide: Path,
    coords: npt.NDArray[np.int64],
    tile_px: float,
    weights: npt.NDArray[np.float64],
    *,
    title: str,
) -> None:
    """Write the slide's thumbnail beside the same thumbnail under its attention ranks (PNG).

    Raises:
        ConfigError: openslide is not installed (extra `pathology`).
        TumorboardError: The slide cannot be opened.
    """
    openslide = require("openslide", extra="pathology")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with openslide.OpenSlide(str(slide)) as opened:
        width, height = opened.dimensions
        thumbnail = np.asarray(opened.get_thumbnail((THUMBNAIL_PX, THUMBNAIL_PX)).convert("RGB"))
    ranks = _rank_image(thumbnail.shape[:2], (width, height), coords, tile_px, weights)
    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.imshow(thumbnail)
    left.set_title("slide")
    right.imshow(thumbnail)
    shade = right.imshow(ranks, cmap="magma", alpha=0.55, vmin=0, vmax=1)
    right.set_title("attention (percentile in slide)")
    for axis in (left, right):
        axis.set_axis_off()
    figure.colorbar(shade, ax=right, shrink=0.7, label="low  →  high attention")
    figure.suptitle(title)
    with whole_or_nothing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _rank_image(
    shape: tuple[int, int],
    slide_px: tuple[int, int],
    coords: npt.NDArray[np.int64],
    tile_px: float,
    weights: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    image = np.full(shape, np.nan)
    sx, sy = shape[1] / slide_px[0], shape[0] / slide_px[1]
    for (x, y), rank in zip(coords, percentile_ranks(weights), strict=True):
        rows = slice(int(y * sy), max(int((y + tile_px) * sy), int(y * sy) + 1))
        columns = slice(int(x * sx), max(int((x + tile_px) * sx), int(x * sx) + 1))
        image[rows, columns] = rank
    return image


def _square(x: int, y: int, edge: float) -> list[list[float]]:
    return [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]


def _colour(rank: float) -> list[int]:
    from matplotlib import colormaps

    return [round(255 * channel) for channel in colormaps["magma"](rank)[:3]]
