"""Draw the voxels of a synthetic head MR with a tumour.

The radiology factor z shows in four ways, each with noise of its own: tumour size, the share of
the non-enhancing core, texture within the tumour, and enhancement on contrast-enhanced T1. The
three sequences share one grid and one mask.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from simulations.synthetic.site_shift import SiteShift

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SEQUENCES = ("t1", "t2", "t1c")
SPACING_MM = (5.0, 2.25, 2.25)
"""Slice, row and column spacing in mm."""

# Signal of each tissue relative to white matter on T1.
_TISSUES = ("air", "fat", "bone", "csf", "grey", "white", "oedema", "rim", "core")
_SIGNAL = {
    "t1": (0.01, 1.6, 0.15, 0.30, 0.75, 1.00, 0.82, 0.66, 0.45),
    "t2": (0.01, 1.2, 0.15, 2.00, 1.10, 0.80, 1.55, 1.40, 1.90),
    "t1c": (0.01, 1.6, 0.15, 0.30, 0.77, 1.02, 0.80, 1.35, 0.50),
}


@dataclass(frozen=True)
class Lesion:
    """What one patient's tumour looks like.

    Attributes:
        radius_mm: Mean radius.
        core_share: Radius of the non-enhancing core over the tumour's radius.
        texture: Amplitude of intensity variation within the tumour.
        enhancement: Rim signal on contrast-enhanced T1 over the usual.
    """

    radius_mm: float
    core_share: float
    texture: float
    enhancement: float


@dataclass(frozen=True)
class HeadScan:
    """Three sequences and the tumour mask, all (slices, rows, columns)."""

    volumes: dict[str, npt.NDArray[np.int16]]
    mask: npt.NDArray[np.uint8]


def draw_lesion(latent: float, generator: np.random.Generator) -> Lesion:
    """Return a tumour that shows the radiology factor, with noise on each trait."""
    noise = generator.standard_normal(4)
    return Lesion(
        radius_mm=float(np.clip(17 * np.exp(0.17 * latent + 0.03 * noise[0]), 9.5, 30)),
        core_share=float(np.clip(0.42 + 0.13 * latent + 0.04 * noise[1], 0.0, 0.8)),
        texture=float(np.clip(0.10 + 0.035 * latent + 0.012 * noise[2], 0.02, 0.3)),
        enhancement=float(np.exp(0.10 * latent + 0.05 * noise[3])),
    )


def render_head(
    lesion: Lesion,
    *,
    shape: tuple[int, int, int],
    shift: SiteShift,
    generator: np.random.Generator,
) -> HeadScan:
    """Return the scan.

    Args:
        lesion: The tumour to show.
        shape: Slices, rows, columns.
        shift: Intensity scale, noise and receive field of the scanner.
        generator: Source of everything random.
    """
    place = _grid_mm(shape)
    tissue = _head(place, generator)
    distance = _tumour_distance(place, lesion.radius_mm, generator)
    brain = tissue >= _TISSUES.index("csf")
    mask = one_piece(brain & (distance < lesion.radius_mm))
    tissue[brain & (distance < lesion.radius_mm + 7)] = _TISSUES.index("oedema")
    tissue[mask] = _TISSUES.index("rim")
    tissue[mask & (distance < lesion.radius_mm * lesion.core_share)] = _TISSUES.index("core")
    grain = _smooth_field(shape, (1.0, 1.6, 1.6), generator)
    volumes = {}
    for name in SEQUENCES:
        signal = np.array(_SIGNAL[name], np.float32)
        if name == "t1c":
            signal[_TISSUES.index("rim")] *= lesion.enhancement
        clean = signal[tissue] * (1 + np.where(mask, lesion.texture, 0.03) * grain)
        volumes[name] = _scan(clean.astype(np.float32), place, shift, generator)
    return HeadScan(volumes=volumes, mask=mask.astype(np.uint8))


def _grid_mm(shape: tuple[int, int, int]) -> list[Volume]:
    """Return (z, y, x) in mm from the centre, broadcastable to `shape`."""
    axes = [
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(step)
        for n, step in zip(shape, SPACING_MM, strict=True)
    ]
    return [axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]]


def _smooth_field(
    shape: tuple[int, int, int], sigma: tuple[float, float, float], generator: np.random.Generator
) -> Volume:
    """Return noise of unit variance, smooth over `sigma` voxels."""
    noise = generator.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
    return np.asarray(field / max(float(field.std()), 1e-6), np.float32)


def _head(place: list[Volume], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the tissue index of every voxel of a head without tumour."""
    z, y, x = place
    size = 1 + 0.04 * generator.standard_normal(3)
    radius = np.sqrt((x / (80 * size[0])) ** 2 + (y / (98 * size[1])) ** 2 + (z / 120) ** 2)
    tissue = np.zeros(radius.shape, np.int64)
    for name, edge in (("fat", 1.0), ("bone", 0.94), ("csf", 0.87), ("grey", 0.84)):
        tissue[radius < edge] = _TISSUES.index(name)
    folds = _smooth_field(radius.shape, (1.0, 2.2, 2.2), generator)
    tissue[(radius < 0.80) & (folds > -0.5 + 1.2 * (radius - 0.5))] = _TISSUES.index("white")
    for side in (-1, 1):
        ventricle = ((x - side * 11) / 7) ** 2 + ((y + 4) / 26) ** 2 + ((z - 8) / 18) ** 2
        tissue[ventricle < 1] = _TISSUES.index("csf")
    return tissue


def _tumour_distance(
    place: list[Volume], radius_mm: float, generator: np.random.Generator
) -> Volume:
    """Return the warped distance in mm from a random centre inside the brain."""
    z, y, x = place
    reach = max(46 - radius_mm, 4)
    angle, along = generator.uniform(0, 2 * np.pi), generator.uniform(0.6, 1.0)
    centre_z = float(generator.uniform(-1, 1)) * max(abs(float(z[0, 0, 0])) - radius_mm - 6, 0)
    dx, dy = x - reach * along * np.cos(angle), y - 1.2 * reach * along * np.sin(angle)
    stretch = np.exp(0.08 * generator.standard_normal(3))
    distance = np.sqrt(
        (dx * stretch[0]) ** 2 + (dy * stretch[1]) ** 2 + ((z - centre_z) * stretch[2]) ** 2
    )
    warp = _smooth_field(distance.shape, (1.5, 4.0, 4.0), generator)
    return np.asarray(distance * (1 + 0.07 * warp), np.float32)


def one_piece(mask: Mask) -> Mask:
    """Return the largest piece of every slice with its holes filled, as contours describe it.

    Args:
        mask: (slices, rows, columns) bool; pieces under four pixels are dropped.
    """
    solid = np.zeros_like(mask)
    for index, plane in enumerate(mask):
        labels, count = ndimage.label(plane)
        if count:
            sizes = np.bincount(labels.ravel())[1:]
            if sizes.max() >= 4:
                solid[index] = ndimage.binary_fill_holes(labels == 1 + int(sizes.argmax()))
    return solid


def _scan(
    clean: Volume, place: list[Volume], shift: SiteShift, generator: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Return what the scanner stores: blur, receive field, Rician noise, gain, integers."""
    image = ndimage.gaussian_filter(clean, (0, 0.55, 0.55), truncate=3.0)
    slope = generator.standard_normal(3) * shift.mr_bias
    field = np.exp(sum(s * axis / 60 for s, axis in zip(slope, place, strict=True)))
    real, imaginary = (
        generator.standard_normal((2, *clean.shape), dtype=np.float32) * shift.mr_noise
    )
    magnitude = np.hypot(image * field + real, imaginary)
    gain = shift.mr_gain * float(np.exp(0.1 * generator.standard_normal()))
    return np.asarray(np.clip(np.rint(magnitude * gain), 0, 32_000), np.int16)
