"""Choose the pictures of a bag: tiles on their slides, slices of a scan; none for others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.explain.attribution import Attribution
from client.explain.figure import AGAINST, GRID, INK, MUTED, TOWARDS, new_figure, save, set_title
from client.explain.layers import Layer, bag_layers
from client.explain.slide_geojson import qupath_origin, write_geojson
from client.explain.slide_picture import write_slide_picture
from client.explain.slide_tiles import tiles_by_slide
from client.extract.kinds.extractor import create_extractor, extractor_class
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.errors import ExtractionError, FeatureError
from common.study.modalities import MODALITY_ENTRIES
from common.study.study import FeatureSpec


@dataclass(frozen=True)
class BagView:
    """One feature set of one patient, with what the model read of it.

    Attributes:
        name: Feature set.
        spec: Its specification.
        row: The patient.
        file: The patient's feature file.
        where: Its path.
        kept: (T,) rows of the file that the model read.
        attention: (T,) weights, or None for a model without attention.
    """

    name: str
    spec: FeatureSpec
    row: PatientRow
    file: FeatureFile
    where: str
    kept: npt.NDArray[np.int64]
    attention: npt.NDArray[np.float64] | None


def bag_pictures(
    view: BagView, attributions: Sequence[Attribution], folder: Path, *, synthetic: bool
) -> list[str]:
    """Write the pictures of a bag into `folder`; return what could not be shown, and why.

    Raises:
        ConfigError: An optional library is not installed.
    """
    draw = _painter(view)
    if draw is None:
        return []
    layers = bag_layers(view.name, view.attention, attributions)
    if not layers:
        return [f"{view.name}: the model has no attention, and its attribution cannot be read"]
    try:
        return draw(view, layers, folder, synthetic)
    except (ExtractionError, FeatureError) as error:
        return [f"{view.name}: [{error.code}] {error.what} ({error.where})"]


def _painter(view: BagView) -> Callable[[BagView, Sequence[Layer], Path, bool], list[str]] | None:
    """Return what draws a bag: tiles by their places, whoever extracted them, slices by images."""
    if MODALITY_ENTRIES.get(view.spec.modality).tiled and view.file.coords is not None:
        return _slides
    if view.spec.extractor is None:
        return None
    return _slices if hasattr(extractor_class(view.name, view.spec), "images") else None


def _slides(view: BagView, layers: Sequence[Layer], folder: Path, synthetic: bool) -> list[str]:
    for tiles in tiles_by_slide(view.file, view.kept, view.row.slides, where=view.where):
        here = [layer.at(tiles.tokens) for layer in layers]
        stem = f"{view.name}_{_unique_stem(tiles.slide, view.row.slides)}"
        title = f"Patient {view.row.patient_id}, {tiles.slide.name}"
        picture = folder / f"{stem}.png"
        write_slide_picture(picture, tiles, here, title=title, synthetic=synthetic)
        origin = qupath_origin(tiles.slide)
        write_geojson(folder / f"{stem}.geojson", tiles, here, origin_px=origin)
    return []


def _unique_stem(slide: Path, slides: Sequence[Path]) -> str:
    """Return the slide's name without ending; numbered where two of the patient share it."""
    same = [other for other in slides if other.stem == slide.stem]
    return slide.stem if len(same) == 1 else f"{slide.stem}_{slides.index(slide) + 1}"


def _slices(view: BagView, layers: Sequence[Layer], folder: Path, synthetic: bool) -> list[str]:
    extractor: Any = create_extractor(view.name, view.spec)
    if extractor.fingerprint != view.file.fingerprint:
        return [f"{view.name}: the features were made by another extractor than is installed"]
    images, names = extractor.images(view.row)
    if len(images) != len(view.file.features):
        return [f"{view.name}: the scans changed since their features were extracted"]
    write_slice_picture(
        folder / f"{view.name}.png",
        images[view.kept],
        [names[k] for k in view.kept],
        layers,
        title=f"Patient {view.row.patient_id}, {view.name}",
        synthetic=synthetic,
    )
    return []


_CELL_IN = 1.9
_ATTENTION = "#8a5a00"
_SHORT = {"attribution to response": "response", "attribution to risk": "risk"}


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
        for span, shade in (([start, start + width], GRID), ([zero, zero + length], colour)):
            panel.plot(
                span, [y, y], color=shade, linewidth=3.5, clip_on=False, solid_capstyle="butt"
            )
        name = _SHORT.get(layer.name, layer.name)
        panel.text(0, y, name, fontsize=6.5, color=MUTED, va="center")
        number = f"{value:+.3f}" if layer.signed else f"{value:.2f}"
        panel.text(size, y, number, fontsize=6.5, color=INK, va="center", ha="right")
