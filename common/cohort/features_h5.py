"""Read and write feature files: one bag of tokens per patient and feature set, in HDF5.

Ours hold `features` (T, D) float32 and, for slides, `coords` (T, 2) int64 in level-0 pixels of
the tile's upper left corner and `slide_index` (T,): the layout CLAM and TRIDENT users know.
Units are in the attributes. Files of CLAM, TRIDENT and STAMP are read as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from common.errors import ErrorCode, FeatureError
from common.storage.atomic_file import whole_or_nothing

FINGERPRINT = "extractor_fingerprint"
"""Attribute that names the extractor: 64 hex digits."""

FORMAT = "tumorboard-features/1"
COORDS_UNIT = "level-0 px"

Attr = str | int | float


@dataclass
class FeatureFile:
    """One bag.

    Attributes:
        features: (T, D) float32, finite, T >= 1.
        coords: (T, 2) int64, x and y of each tile in level-0 pixels; None where unknown.
        attrs: Provenance: `extractor_fingerprint`, sizes with units in their names.
        slide_index: (T,) int64, position of the tile's slide among the patient's slides in the
            manifest; None where there is one slide or none.
    """

    features: npt.NDArray[np.float32]
    coords: npt.NDArray[np.int64] | None = None
    attrs: dict[str, Attr] = field(default_factory=dict)
    slide_index: npt.NDArray[np.int64] | None = None

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the extractor that made it, or None for a foreign file."""
        value = self.attrs.get(FINGERPRINT)
        return str(value) if value is not None else None


def feature_path(store: Path, feature: str, patient_id: str) -> Path:
    """Return where the features of one patient are in a feature store."""
    return store / feature / f"{patient_id}.h5"


def write_features(path: Path, file: FeatureFile) -> None:
    """Write a feature file, whole or not at all; the same bag gives the same bytes.

    Raises:
        FeatureError: Features are not (T, D) with T >= 1, not finite, or coords or slide numbers do
            not match.
    """
    features = _checked_features(file.features, path)
    coords = _checked_coords(file.coords, len(features), path)
    slide_index = _checked_slide_index(file.slide_index, len(features), path)
    with whole_or_nothing(path) as temporary, h5py.File(temporary, "w", libver="v110") as handle:
        handle.attrs["format"] = FORMAT
        for name in sorted(file.attrs):
            handle.attrs[name] = file.attrs[name]
        data = handle.create_dataset("features", data=features, fletcher32=True)
        data.attrs["axes"] = "token, column"
        if coords is not None:
            data = handle.create_dataset("coords", data=coords, fletcher32=True)
            data.attrs["axes"] = "token, (x, y)"
            data.attrs["unit"] = COORDS_UNIT
        if slide_index is not None:
            data = handle.create_dataset("slide_index", data=slide_index, fletcher32=True)
            data.attrs["axes"] = "token"


def read_features(path: Path, *, um_per_px: float | None = None) -> FeatureFile:
    """Return the bag in a feature file of ours, CLAM, TRIDENT or STAMP.

    Recognised by their datasets: `features` (ours, CLAM: (T, D); TRIDENT: also (1, T, D)) or
    `feats` (STAMP, half precision). STAMP keeps coordinates in micrometres and not the slide's
    resolution, so its coords are None unless `um_per_px` is given.

    Args:
        path: The HDF5 file.
        um_per_px: Level-0 resolution of the slide, to turn micrometres into pixels.

    Raises:
        FeatureError: The file is missing, truncated, no feature file, or holds the wrong
            dimensions; code FEATURE_NOT_FINITE if a value is NaN or infinite.
    """
    _check_exists(path)
    try:
        with h5py.File(path, "r") as handle:
            raw, coords, attrs = _read_datasets(handle, path)
            slides = handle["slide_index"][()] if "slide_index" in handle else None
    except (OSError, RuntimeError, KeyError) as error:
        raise _damaged(path, error) from error
    features = _checked_features(raw, path)
    pixels = None if coords is None else _level0_pixels(coords, attrs, um_per_px)
    return FeatureFile(
        features,
        _checked_coords(pixels, len(features), path),
        attrs,
        _checked_slide_index(slides, len(features), path),
    )


def read_header(path: Path) -> tuple[tuple[int, ...], dict[str, Attr]]:
    """Return the shape of the features, (T, D), and the attributes, without reading values.

    Raises:
        FeatureError: The file is missing, truncated or no feature file.
    """
    _check_exists(path)
    try:
        with h5py.File(path, "r") as handle:
            name = _features_name(handle, path)
            shape = tuple(int(n) for n in handle[name].shape)
            attrs = _attrs(handle, name)
    except (OSError, RuntimeError, KeyError) as error:
        raise _damaged(path, error) from error
    return (shape[1:] if len(shape) == 3 and shape[0] == 1 else shape), attrs


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise FeatureError(
            "the feature file does not exist",
            where=str(path),
            cure="run `tumorboard site extract`; it makes only what is missing",
        )


def _damaged(path: Path, error: Exception) -> FeatureError:
    return FeatureError(
        "the feature file is damaged",
        where=str(path),
        why=" ".join(str(error).split()),
        cure="delete it and run `tumorboard site extract` again",
    )


def _features_name(handle: Any, path: Path) -> str:
    for name in ("features", "feats"):
        if isinstance(handle.get(name), h5py.Dataset):
            return name
    raise FeatureError(
        "the file holds no features",
        where=str(path),
        why=f"found {sorted(handle)}, expected a dataset 'features' (ours, CLAM, TRIDENT) "
        "or 'feats' (STAMP)",
        cure="check that this is a feature file and not, say, a file of coordinates",
    )


def _read_datasets(
    handle: Any, path: Path
) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], str] | None, dict[str, Attr]]:
    """Return raw features, raw coordinates with their unit, and attributes."""
    name = _features_name(handle, path)
    values = _without_batch_axis(handle[name][()])
    coords = handle.get("coords")
    if coords is None:
        return values, None, _attrs(handle, name)
    # STAMP keeps the unit at the root; before version 2 it wrote none.
    unit = _unit(handle.attrs, "?") if name == "feats" else _unit(coords.attrs, COORDS_UNIT)
    points = _without_batch_axis(coords[()])
    return values, (points, unit), {**_plain(coords.attrs), **_attrs(handle, name)}


def _unit(attrs: Mapping[str, Any], default: str) -> str:
    value = attrs.get("unit", default)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _attrs(handle: Any, name: str) -> dict[str, Attr]:
    return {**_plain(handle[name].attrs), **_plain(handle.attrs)}


def _without_batch_axis(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values[0] if values.ndim == 3 and values.shape[0] == 1 else values


def _plain(attrs: Mapping[str, Any]) -> dict[str, Attr]:
    """Return scalar attributes as Python values, without those that describe the layout."""
    plain: dict[str, Attr] = {}
    for name, value in attrs.items():
        value = value.item() if isinstance(value, np.generic) else value
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(value, str | int | float) and name not in ("axes", "unit"):
            plain[str(name)] = value
    return plain


def _level0_pixels(
    coords: tuple[npt.NDArray[Any], str], attrs: dict[str, Attr], um_per_px: float | None
) -> npt.NDArray[Any] | None:
    points, unit = coords
    if unit == COORDS_UNIT:
        return points
    if unit == "um" and um_per_px is not None:
        return np.rint(np.asarray(points, dtype=np.float64) / um_per_px)
    attrs["foreign_coords_unit"] = unit
    return None


def _checked_features(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 1 or array.dtype.kind not in "fiu":
        raise FeatureError(
            "the features are not a bag of tokens",
            where=str(path),
            why=f"found shape {array.shape}, type {array.dtype}; expected (tokens, columns) "
            "numbers with at least one token",
            cure="extract this patient again; an absent modality has no file at all",
        )
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(features)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise FeatureError(
            f"{int(bad.sum())} feature value(s) are NaN, infinite or too large",
            where=f"{path}, first at token {row}, column {column}",
            why="one such value would destroy the model of every hospital",
            cure="extract this patient again; if it recurs, look at the raw file",
            code=ErrorCode.FEATURE_NOT_FINITE,
        )
    return features


def _checked_coords(
    coords: npt.NDArray[Any] | None, n_tokens: int, path: Path
) -> npt.NDArray[np.int64] | None:
    if coords is None:
        return None
    array = np.asarray(coords)
    fits = array.shape == (n_tokens, 2) and array.dtype.kind in "fiu"
    if not fits or not np.isfinite(array).all():
        raise FeatureError(
            "the coordinates do not fit the features",
            where=str(path),
            why=f"found shape {array.shape}, expected ({n_tokens}, 2) finite numbers",
            cure="extract this patient again",
        )
    return np.ascontiguousarray(np.rint(array), dtype=np.int64)


def _checked_slide_index(
    slide_index: npt.NDArray[Any] | None, n_tokens: int, path: Path
) -> npt.NDArray[np.int64] | None:
    if slide_index is None:
        return None
    array = np.asarray(slide_index)
    if array.shape != (n_tokens,) or array.dtype.kind not in "iu" or array.min() < 0:
        raise FeatureError(
            "the slide numbers do not fit the features",
            where=str(path),
            why=f"found shape {array.shape}, expected ({n_tokens},) numbers from 0",
            cure="extract this patient again",
        )
    return array.astype(np.int64)
