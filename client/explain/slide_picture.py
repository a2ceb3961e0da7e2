"""Draw attention and attribution of a slide's tiles on the slide (PNG)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.explain.figure import INK, MUTED, colour_map, new_figure, save, set_title
from client.explain.layers import Layer
from client.explain.slide_tiles import SlideTiles
from client.extract.slides.wsi_reader import SlideReader

OVERVIEW_PX = 1600
_PAGE_IN = 11.0
_COVER = 0.72
_LEGEND = {"orientation": "horizontal", "shrink": 0.6, "aspect": 40, "pad": 0.01}


def write_slide_picture(
    path: Path, tiles: SlideTiles, layers: Sequence[Layer], *, title: str, synthetic: bool
) -> None:
    """Write the slide beside copies of it under each layer.

    Attention is coloured by its percentile rank in the slide, attribution by its value; where the
    model read no tile, the slide shows through.

    Args:
        path: Target; written whole or not at all.
        tiles: Where the tiles lie.
        layers: What to draw, each (T,).
        title: Heading.
        synthetic: Whether to stamp the picture.

    Raises:
        ConfigError: openslide is not installed (extra `pathology`).
        ExtractionError: The slide cannot be opened or does not say its resolution.
    """
    with SlideReader(tiles.slide) as slide:
        largest = max(slide.width_px, slide.height_px)
        image = slide.overview(slide.um_per_px * max(largest / OVERVIEW_PX, 1.0))
        slide_px, um_per_px = (slide.width_px, slide.height_px), slide.um_per_px
    rows, columns = _grid(1 + len(layers), image.shape[1] / image.shape[0])
    panel_in = _PAGE_IN / columns
    height = rows * (panel_in * image.shape[0] / image.shape[1] + 0.75) + 0.8
    figure = new_figure(_PAGE_IN, min(height, 2 * _PAGE_IN))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    read = f"{len(tiles.tokens)} of {tiles.n_tiles} tiles read by the model"
    _draw_slide(panels[0], image, f"slide, {read}")
    _same_place(figure, panels[0])
    _scale_bar(panels[0], image, slide_px[0] * um_per_px)
    grey = _paler(image)
    for panel, layer in zip(panels[1:], layers, strict=False):
        _draw_slide(panel, grey, layer.name)
        cover = tile_image(grey.shape[:2], slide_px, tiles, layer.shown())
        shade = panel.imshow(
            cover, cmap=colour_map(layer), alpha=_COVER, vmin=0, vmax=1, interpolation="nearest"
        )
        _legend(figure, panel, shade, layer)
    set_title(figure, title, synthetic=synthetic)
    save(figure, path)


def _grid(n: int, aspect: float) -> tuple[int, int]:
    """Return rows and columns whose page comes closest to 4:3, for panels of this aspect."""

    def off(columns: int) -> float:
        rows = math.ceil(n / columns)
        empty = rows * columns - n
        return abs(math.log(columns * aspect / rows / (4 / 3))) + empty

    columns = min(range(1, n + 1), key=off)
    return math.ceil(n / columns), columns


def _draw_slide(panel: Any, image: npt.NDArray[np.uint8], title: str) -> None:
    panel.imshow(image)
    panel.set_title(title, fontsize=9, color=INK, loc="left")


def _paler(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the slide in light grey, so that only the layer has colour."""
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    pale = 255 - 0.75 * (255 - grey)
    return np.repeat(pale[..., None], 3, axis=2).round().astype(np.uint8)


def tile_image(
    shape: tuple[int, ...],
    slide_px: tuple[int, int],
    tiles: SlideTiles,
    shown: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return (rows, columns) with the value of the tile at each pixel, NaN elsewhere.

    Args:
        shape: Rows and columns of the picture, which shows the whole slide.
        slide_px: Width and height of the slide, level-0 pixels.
        tiles: Where the tiles lie.
        shown: (T,) value of each tile.
    """
    image = np.full(shape, np.nan)
    scale_x, scale_y = shape[1] / slide_px[0], shape[0] / slide_px[1]
    for (x, y), value in zip(tiles.corners, shown, strict=True):
        left, right = round(x * scale_x), round((x + tiles.side_px) * scale_x)
        top, bottom = round(y * scale_y), round((y + tiles.side_px) * scale_y)
        image[top : max(bottom, top + 1), left : max(right, left + 1)] = value
    return image


def _legend(figure: Any, panel: Any, shade: Any, layer: Layer) -> None:
    bar = figure.colorbar(shade, ax=panel, **_LEGEND)
    bar.outline.set_visible(False)
    largest = float(np.abs(layer.values).max(initial=0.0))
    if layer.signed:
        marks = [f"{layer.low}\n{-largest:.2g}", "0", f"{layer.high}\n{largest:+.2g}"]
    else:
        marks = [f"{layer.low}\n", "percentile in slide", layer.high]
    bar.set_ticks([0, 0.5, 1], labels=marks)
    bar.ax.tick_params(labelsize=7, colors=MUTED, length=0)


def _same_place(figure: Any, panel: Any) -> None:
    """Keep room below the slide as a legend would, so that all copies are of one size."""
    room = figure.colorbar(panel.get_images()[0], ax=panel, **_LEGEND)
    room.set_ticks([0], labels=["\n"])
    room.ax.set_visible(False)


def _scale_bar(panel: Any, image: npt.NDArray[np.uint8], width_um: float) -> None:
    """Draw a bar of a round length, about a fifth of the width of the slide."""
    target_um = width_um / 5
    step = 10.0 ** math.floor(math.log10(target_um))
    length_um = max(m * step for m in (1, 2, 5) if m * step <= target_um)
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    rows, columns = image.shape[:2]
    length = length_um / width_um * columns
    left, y = 0.03 * columns, 0.97 * rows
    panel.plot([left, left + length], [y, y], color=INK, linewidth=3, solid_capstyle="butt")
    panel.text(left, y - 0.012 * rows, text, fontsize=7.5, color=INK, va="bottom")
