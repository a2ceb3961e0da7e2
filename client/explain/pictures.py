"""Choose the pictures of a bag: tiles on their slides, slices of a scan; none for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from client.explain.attribution import Attribution
from client.explain.layers import Layer, bag_layers
from client.explain.slice_picture import ShowsImages, write_slice_picture
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

    Args:
        view: The bag.
        attributions: Of this patient, one per task.
        folder: Where the files go.
        synthetic: Whether to stamp the pictures.

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
    extractor = cast(ShowsImages, create_extractor(view.name, view.spec))
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
