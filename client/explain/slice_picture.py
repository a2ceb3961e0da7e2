"""Draw attention and attribution on the slices of a scan (PNG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from client.explain.colours import AGAINST, GRID, INK, MUTED, TOWARDS
from client.explain.figure import new_figure, save, set_title
from client.explain.layers import Layer

if TYPE_CHECKING:
    from common.cohort.manifest import PatientRow

_CELL_IN = 1.9
_ATTENTION = "#8a5a00"
_SHORT = {"attribution to response": "response", "attribution to risk": "risk"}


class ShowsImages(Protocol):
    """An extractor whose tokens are pictures that can be shown."""

    fingerprint: str

    def images(self, row: PatientRow) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Return the pictures the encoder sees, (S, P, P, 3) uint8, and a name for each."""
        ...


def write_slice_picture(
    path: Path,
    images: npt.NDArray[np.uint8],
    names: Sequence[str],
    layers: Sequence[Layer],
    *,
    title: str,
    synthetic: bool,
) -> None:
    """Write the slices that the model read, a row per sequence, with one bar per layer below each.

    The green channel is drawn: the slice itself, its neighbours being red and blue.

    Args:
        path: Target; written whole or not at all.
        images: (S, P, P, 3) as the encoder saw them.
        names: S names, "<sequence> slice <number>".
        layers: What to draw, each (S,); bars are relative to the largest of a layer.
        title: Heading.
        synthetic: Whether to stamp the picture.
    """
    groups = _by_sequence(names)
    columns = max(len(group) for group in groups.values())
    below = 0.16 * len(layers) + 0.3
    size = (max(columns * _CELL_IN + 0.5, 6.5), len(groups) * (_CELL_IN + below) + 0.9)
    figure = new_figure(*size)
    panels = figure.subplots(len(groups), columns, squeeze=False)
    largest = [max(float(np.abs(layer.values).max(initial=0.0)), 1e-12) for layer in layers]
    for row, (sequence, group) in zip(panels, groups.items(), strict=True):
        for panel in row[len(group) :]:
            panel.set_axis_off()
        for panel, k in zip(row, group, strict=False):
            _draw(panel, images[k, ..., 1], names[k].removeprefix(f"{sequence} "))
            _draw_bars(panel, [(layer, layer.values[k]) for layer in layers], largest)
        row[0].set_ylabel(sequence, fontsize=10, color=INK, fontweight="bold")
    set_title(figure, title, synthetic=synthetic)
    save(figure, path)


def _by_sequence(names: Sequence[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        groups.setdefault(name.rsplit(" slice ", 1)[0], []).append(k)
    return groups


def _draw(panel: Any, image: npt.NDArray[np.uint8], name: str) -> None:
    panel.imshow(image, cmap="gray", vmin=0, vmax=255)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_title(name, fontsize=8, color=INK, loc="left", pad=3)
    for side in panel.spines.values():
        side.set_visible(False)


def _draw_bars(panel: Any, layers: Sequence[tuple[Layer, float]], largest: Sequence[float]) -> None:
    """Draw name, bar and number of each layer below a slice, in the slice's own coordinates."""
    size = panel.get_images()[0].get_array().shape[0]
    line = 0.085 * size
    for i, ((layer, value), most) in enumerate(zip(layers, largest, strict=True)):
        y = size + (i + 0.85) * line
        start, width = 0.42 * size, 0.34 * size
        colour = _ATTENTION if not layer.signed else (TOWARDS if value > 0 else AGAINST)
        zero = start + width / 2 if layer.signed else start
        length = value / most * (width / 2 if layer.signed else width)
        panel.plot(
            [start, start + width],
            [y, y],
            color=GRID,
            linewidth=3.5,
            clip_on=False,
            solid_capstyle="butt",
        )
        panel.plot(
            [zero, zero + length],
            [y, y],
            color=colour,
            linewidth=3.5,
            clip_on=False,
            solid_capstyle="butt",
        )
        name = _SHORT.get(layer.name, layer.name)
        panel.text(0, y, name, fontsize=6.5, color=MUTED, va="center")
        number = f"{value:+.3f}" if layer.signed else f"{value:.2f}"
        panel.text(size, y, number, fontsize=6.5, color=INK, va="center", ha="right")
