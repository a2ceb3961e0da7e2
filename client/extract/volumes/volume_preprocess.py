"""Make volumes comparable: bias field, intensities, isotropic voxels.

Order as in `methods.md` section 4, with one change: means and deviations are taken on the grid
that was measured, before resampling, so that only the surroundings of the tumour need
resampling.
"""

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy import ndimage

from client.extract.volumes.volume import Mask, Volume, sitk
from common.contract import Contract
from common.errors import ErrorCode, ExtractionError

_SUPPORT = 12
"""Voxels kept around the new grid before B-spline resampling: its prefilter decays by 0.27 a
voxel, so what is cut off changes values by under 1e-6 of the local contrast."""


class BiasCorrection(Contract):
    """N4 (Tustison et al., 2010) on a shrunken copy; the field is applied at full resolution."""

    shrink: int = Field(default=4, ge=1, description="factor along each axis, 16 voxels kept")
    max_voxels: int = Field(
        default=30_000, ge=1000, description="the finest axes are shrunk further down to this"
    )
    iterations: list[Annotated[int, Field(gt=0)]] = Field(default=[20, 20, 20], min_length=1)


class Preprocessing(Contract):
    """What is done to a volume before features are computed."""

    n4: BiasCorrection | None = None
    spacing_mm: float | None = Field(
        default=None, gt=0, description="isotropic voxel size; null keeps the voxels (radiomics)"
    )
    intensity: Literal["zscore", "window", "none"] = "zscore"
    clip_sd: float = Field(default=3.0, gt=0, description="zscore: clipped at this many SD")
    scale: float = Field(default=100.0, gt=0, description="zscore: one SD becomes this")
    window: tuple[float, float] = Field(
        default=(-160.0, 240.0), description="window: lowest and highest value, HU for CT"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window[0] >= self.window[1]:
            raise ValueError("window: the first value must be the lower one")
        return self

    @property
    def limits(self) -> tuple[float, float] | None:
        """Lowest and highest intensity after preprocessing; None if not limited."""
        if self.intensity == "none":
            return None
        top = self.clip_sd * self.scale
        return (-top, top) if self.intensity == "zscore" else self.window


def correct_and_scale(volume: Volume, settings: Preprocessing) -> Volume:
    """Return the volume with its bias field removed and its intensities made comparable.

    `zscore` standardises within the body and clips; `window` clips. The grid is kept.

    Raises:
        ExtractionError: The body has no contrast at all.
    """
    image = volume.image
    needs_body = settings.n4 is not None or settings.intensity == "zscore"
    body = body_mask(image) if needs_body else None
    if settings.n4 is not None:
        image = correct_bias(image, body, settings.n4)
    array = sitk().GetArrayFromImage(image)
    if settings.intensity == "zscore":
        _standardise(array, sitk().GetArrayViewFromImage(body) != 0, volume)
        np.clip(array, -settings.clip_sd, settings.clip_sd, out=array)
        array *= settings.scale
    elif settings.intensity == "window":
        np.clip(array, *settings.window, out=array)
    scaled = sitk().GetImageFromArray(array)
    scaled.CopyInformation(image)
    return Volume(scaled, volume.source, volume.series_uid, volume.frame_of_reference)


def body_mask(image: Any) -> Any:
    """Return the head or body as a uint8 image.

    Voxels above t2 + 0.1 (t98 - t2), with t2 and t98 the 2nd and 98th percentile (Smith, 2002,
    the head threshold of BET); largest piece, holes filled. A threshold low in the range keeps
    muscle and tumour beside bright fat, which Otsu's would not.
    """
    array = sitk().GetArrayViewFromImage(image)
    low, high = np.percentile(array, [2, 98])
    parts, _ = ndimage.label(array > low + 0.1 * (high - low))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = parts == sizes.argmax() if sizes.any() else array > low
    body = sitk().GetImageFromArray(largest.astype(np.uint8))
    body.CopyInformation(image)
    return sitk().BinaryFillhole(body, foregroundValue=1.0)


def correct_bias(image: Any, body: Any, settings: BiasCorrection) -> Any:
    """Return the image divided by the smooth field that N4 finds within the body.

    Args:
        image: float32 image; shifted to positive values for the logarithm and back.
        body: uint8 image of where to fit.
        settings: Shrink factor and iterations per level.

    Raises:
        ExtractionError: N4 fails on this volume.
    """
    shift = 1.0 - min(0.0, float(sitk().GetArrayViewFromImage(image).min()))
    positive = image + shift
    factors = _shrink_factors(image, settings)
    n4 = sitk().N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(settings.iterations)
    n4.SetNumberOfThreads(1)
    try:
        n4.Execute(sitk().Shrink(positive, factors), sitk().Shrink(body, factors))
        field = sitk().Exp(n4.GetLogBiasFieldAsImage(positive))
    except RuntimeError as error:
        raise ExtractionError(
            "the bias field cannot be estimated",
            why=" ".join(str(error).split())[-300:],
            cure="look at the volume; switch N4 off with extractor.params.preprocess: {n4: null}",
        ) from error
    return positive / sitk().Cast(field, positive.GetPixelID()) - shift


def _shrink_factors(image: Any, settings: BiasCorrection) -> list[int]:
    """Return factors per axis; the fit takes about 50 microseconds per voxel kept."""
    size = np.array(image.GetSize())
    spacing = np.array(image.GetSpacing())
    factors = np.clip(size // 16, 1, settings.shrink)
    while np.prod(size // factors) > settings.max_voxels:
        factors[np.where(size // factors > 4, spacing * factors, np.inf).argmin()] += 1
    return [int(factor) for factor in factors]


def _standardise(
    array: npt.NDArray[np.float32], body: npt.NDArray[np.bool_], volume: Volume
) -> None:
    """Subtract mean and divide by standard deviation of the body, in place."""
    inside = array[body].astype(np.float64)
    deviation = float(inside.std()) if inside.size else 0.0
    if deviation <= 1e-6 * max(1.0, float(np.abs(inside).max(initial=0.0))):
        raise ExtractionError(
            "the volume has no contrast",
            where=str(volume.source),
            why="all voxels of the body have the same value",
            cure="check the export of this series",
        )
    array -= np.float32(inside.mean())
    array /= np.float32(deviation)


def resample_around(volume: Volume, mask: Mask, spacing_mm: float) -> tuple[Any, Any]:
    """Return image and mask around the region, on cubic voxels.

    The grid is PyRadiomics': its corner coincides with the corner of the volume, five voxels
    are kept around the region, and axes along which the region is one slice are kept as they
    are. B-spline for the image, nearest neighbour for the mask.

    Returns:
        Image float32 and mask uint8 on one grid.

    Raises:
        ExtractionError: The region vanishes between the new voxels.
    """
    reach = 6 * spacing_mm / min(volume.spacing_mm)
    image, region = _crop(volume.image, mask.image, math.ceil(reach) + _SUPPORT)
    grid = _cubic_grid(volume.image, mask.array, spacing_mm)
    if np.allclose(volume.image.GetSpacing(), grid.GetSpacing()):
        return _crop(volume.image, mask.image, 5)
    identity = sitk().Transform()
    image_on_grid = sitk().Resample(
        image, grid, identity, sitk().sitkBSpline, 0.0, sitk().sitkFloat32
    )
    new_mask = sitk().Resample(region, grid, identity, sitk().sitkNearestNeighbor, 0)
    if not sitk().GetArrayViewFromImage(new_mask).any():
        raise ExtractionError(
            "the tumour vanishes when resampled",
            where=str(mask.source),
            why=f"it holds {mask.volume_ml:.3f} ml, a voxel {spacing_mm**3 / 1000:.3f} ml",
            cure="use a smaller extractor.params.preprocess.spacing_mm",
            code=ErrorCode.EXTRACTION,
        )
    return image_on_grid, new_mask


def _bounds(array: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return first and last index (i, j, k) of a mask."""
    kji = [np.flatnonzero(array.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([v[0] for v in kji[::-1]]), np.array([v[-1] for v in kji[::-1]])


def _crop(image: Any, region: Any, margin: int) -> tuple[Any, Any]:
    low, high = _bounds(sitk().GetArrayViewFromImage(region) != 0)
    start = np.maximum(low - margin, 0)
    size = np.minimum(high + margin + 1, image.GetSize()) - start
    box = ([int(n) for n in size], [int(n) for n in start])
    return sitk().RegionOfInterest(image, *box), sitk().RegionOfInterest(region, *box)


def _cubic_grid(image: Any, mask: npt.NDArray[np.bool_], spacing_mm: float) -> Any:
    """Return an empty image on PyRadiomics' resampling grid (imageoperations.resampleImage)."""
    old = np.array(image.GetSpacing())
    low, high = _bounds(mask)
    new = np.where(high > low, spacing_mm, old)
    ratio = old / new
    first = np.maximum(np.floor((low - 0.5) * ratio - 5), 0)
    limit = np.ceil(np.array(image.GetSize()) * ratio) - 1
    last = np.minimum(np.ceil((high + 0.5) * ratio + 5), limit)
    origin = 0.5 * (new - old) / old + first / ratio
    grid = sitk().Image([int(n) for n in last - first + 1], sitk().sitkUInt8)
    grid.SetSpacing(new.tolist())
    grid.SetDirection(image.GetDirection())
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(origin.tolist()))
    return grid
