"""Draw the pixels of a synthetic haematoxylin-eosin slide.

The pathology factor z shows in three ways, each with noise of its own: the density of small dark
lymphocyte-like nuclei, the size of the pale tumour nuclei, and the share of fibrous stroma.
Colours follow the Beer-Lambert law: RGB = glass * exp(-(H h + E e)), with stain vectors of the
site.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.optional import require
from simulations.synthetic.site_shift import SiteShift

Plane = npt.NDArray[np.float32]

LYMPHOCYTE_UM = 3.2
TUMOUR_NUCLEUS_UM = 5.0
LATTICE_UM = 15.0


@dataclass(frozen=True)
class Histology:
    """What one patient's tissue looks like.

    Attributes:
        lymphocytes_per_mm2: Density within tissue.
        nucleus_um: Radius of tumour nuclei.
        stroma_share: Share of the tissue that is fibrous.
    """

    lymphocytes_per_mm2: float
    nucleus_um: float
    stroma_share: float


def draw_histology(latent: float, generator: np.random.Generator) -> Histology:
    """Return tissue that shows the pathology factor, with noise on each trait."""
    noise = generator.standard_normal(3)
    return Histology(
        lymphocytes_per_mm2=float(
            np.clip(1300 * np.exp(0.75 * latent + 0.15 * noise[0]), 60, 9000)
        ),
        nucleus_um=float(np.clip(TUMOUR_NUCLEUS_UM - 0.5 * latent + 0.15 * noise[1], 3.4, 7.0)),
        stroma_share=float(np.clip(0.38 - 0.07 * latent + 0.05 * noise[2], 0.1, 0.7)),
    )


def render_slide(
    histology: Histology,
    *,
    side_px: int,
    um_per_px: float,
    shift: SiteShift,
    generator: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Return the slide.

    Args:
        histology: What to show.
        side_px: Side of the square image.
        um_per_px: Micrometres per pixel.
        shift: Staining and scanner of the hospital.
        generator: Source of everything random.

    Returns:
        (side_px, side_px, 3) uint8 RGB.
    """
    cv2 = require("cv2", extra="pathology")
    tissue, stroma = _regions(side_px, um_per_px, histology.stroma_share, generator)
    fine = _field(side_px, 4 / um_per_px, generator)
    fibres = _fibres(side_px, um_per_px, generator)
    nuclei = np.zeros((side_px, side_px), np.float32)
    _draw_tumour_nuclei(
        nuclei, tissue & ~stroma, histology.nucleus_um / um_per_px, um_per_px, generator
    )
    _draw_spindle_nuclei(nuclei, stroma, um_per_px, generator)
    count = histology.lymphocytes_per_mm2 * float(tissue.sum()) * (um_per_px / 1000) ** 2
    _draw_lymphocytes(nuclei, tissue, int(count), LYMPHOCYTE_UM / um_per_px, generator)
    nuclei *= 1 + 0.25 * fine
    soft = cv2.GaussianBlur(tissue.astype(np.float32), (0, 0), 3 / um_per_px)
    ground = np.where(stroma, 0.50 + 0.16 * fibres + 0.06 * fine, 0.40 + 0.10 * fine) * soft
    haematoxylin = (nuclei + np.where(stroma, 0.05, 0.16 + 0.03 * fine) * soft).astype(np.float32)
    eosin = (ground * (1 - 0.45 * np.minimum(nuclei, 1))).astype(np.float32)
    return _stain(haematoxylin, eosin, shift, generator)


def _field(side: int, scale_px: float, generator: np.random.Generator) -> Plane:
    """Return (side, side) smooth noise of unit variance, correlated over `scale_px` pixels."""
    cv2 = require("cv2", extra="pathology")
    small = max(4, int(side / max(scale_px, 1.0)))
    coarse = generator.standard_normal((small, small), dtype=np.float32)
    wide = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    wide -= wide.mean()
    wide /= max(float(wide.std()), 1e-6)
    return np.asarray(wide, np.float32)


def _fibres(side: int, um_per_px: float, generator: np.random.Generator) -> Plane:
    """Return wavy, uneven stripes of about unit amplitude: collagen."""
    angle = generator.uniform(0, np.pi)
    axis = np.arange(side, dtype=np.float32) * um_per_px
    along = axis[:, None] * np.float32(np.sin(angle)) + axis[None, :] * np.float32(np.cos(angle))
    along += 16 * _field(side, 80 / um_per_px, generator)
    along += 2.5 * _field(side, 16 / um_per_px, generator)
    uneven = np.clip(0.55 + 0.45 * _field(side, 30 / um_per_px, generator), 0.05, 1.4)
    stripes = np.sin(along * np.float32(2 * np.pi / 11)) + np.sin(
        along * np.float32(2 * np.pi / 4.7)
    )
    return np.asarray(0.6 * uneven * stripes, np.float32)


def _regions(
    side: int, um_per_px: float, stroma_share: float, generator: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return where tissue is, and where in it stroma is; a lumen or fat drop is neither."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    centre = generator.uniform(-0.08, 0.08, 2).astype(np.float32)
    distance = np.hypot(axis[:, None] - centre[0], (axis[None, :] - centre[1]) * 1.08)
    outline = distance + 0.07 * _field(side, side / 5, generator)
    pattern = _field(side, 105 / um_per_px, generator) + 0.25 * _field(
        side, 30 / um_per_px, generator
    )
    holes = _field(side, 45 / um_per_px, generator) > 2.3
    tissue = (outline < 0.86) & ~holes
    inside = pattern[tissue]
    cut = float(np.quantile(inside[::97], 1 - stroma_share)) if inside.size else 0.0
    return tissue, tissue & (pattern > cut)


def _draw_tumour_nuclei(
    plane: Plane,
    region: npt.NDArray[np.bool_],
    radius_px: float,
    um_per_px: float,
    generator: np.random.Generator,
) -> None:
    """Draw pale, oval nuclei on a jittered lattice."""
    step = LATTICE_UM / um_per_px
    ticks = np.arange(step / 2, plane.shape[0] - 1, step)
    centres = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    centres = centres + generator.uniform(-0.3, 0.3, centres.shape) * step
    positions = _inside(centres, region)
    n = len(positions)
    size = radius_px * np.exp(0.12 * generator.standard_normal((n, 2)))
    dark = 0.55 * np.exp(0.2 * generator.standard_normal(n))
    _draw_ellipses(plane, positions, size, generator.uniform(0, 180, n), dark)


def _draw_spindle_nuclei(
    plane: Plane,
    region: npt.NDArray[np.bool_],
    um_per_px: float,
    generator: np.random.Generator,
) -> None:
    """Draw thin fibroblast nuclei, about 700 in a square millimetre of stroma."""
    side = plane.shape[0]
    positions = _inside(
        generator.uniform(0, side, (int(700 * (side * um_per_px / 1000) ** 2), 2)), region
    )
    n = len(positions)
    size = np.stack([generator.uniform(5, 9, n), generator.uniform(1.1, 1.8, n)], axis=1)
    dark = generator.uniform(0.5, 0.9, n)
    _draw_ellipses(plane, positions, size / um_per_px, generator.normal(40, 35, n), dark)


def _draw_lymphocytes(
    plane: Plane,
    region: npt.NDArray[np.bool_],
    count: int,
    radius_px: float,
    generator: np.random.Generator,
) -> None:
    """Draw small, round, dark nuclei, half of them in clusters."""
    side = plane.shape[0]
    background = generator.uniform(0, side, (int(count * 1.3), 2))
    hearts = generator.uniform(0, side, (max(3, count // 60), 2))
    owner = generator.integers(0, len(hearts), len(background))
    clusters = hearts[owner] + generator.standard_normal(background.shape) * radius_px * 9
    centres = np.where(generator.random((len(background), 1)) < 0.5, clusters, background)
    positions = _inside(centres, region)[:count]
    n = len(positions)
    size = radius_px * np.exp(0.08 * generator.standard_normal((n, 2)))
    dark = 1.35 * np.exp(0.12 * generator.standard_normal(n))
    _draw_ellipses(plane, positions, size, generator.uniform(0, 180, n), dark)


def _inside(
    centres: npt.NDArray[np.float64], region: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return the (x, y) centres that lie in the region."""
    x, y = centres.astype(np.int64).T
    side = region.shape[0]
    within = (x >= 0) & (y >= 0) & (x < side) & (y < side)
    inside = centres[within]
    return np.asarray(inside[region[y[within], x[within]]])


def _draw_ellipses(
    plane: Plane,
    centres: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64],
    angles: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
) -> None:
    """Fill ellipses, sixteenth-pixel accurate."""
    cv2 = require("cv2", extra="pathology")
    points = np.round(centres * 16).astype(int).tolist()
    axes = np.maximum(np.round(radii * 16), 16).astype(int).tolist()
    for point, axis, angle, value in zip(
        points, axes, angles.tolist(), values.tolist(), strict=True
    ):
        cv2.ellipse(plane, point, axis, angle, 0, 360, value, -1, cv2.LINE_8, 4)


def _stain(
    haematoxylin: Plane, eosin: Plane, shift: SiteShift, generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return RGB after staining, scanning blur and sensor noise."""
    cv2 = require("cv2", extra="pathology")
    mixed = (shift.stains * shift.stain_gain[:, None]).astype(np.float32)
    density = cv2.merge([haematoxylin * mixed[0, c] + eosin * mixed[1, c] for c in range(3)])
    light = cv2.exp(-cv2.GaussianBlur(density, (0, 0), shift.focus_px))
    side = haematoxylin.shape[0]
    grain = generator.standard_normal((side, side), dtype=np.float32) * np.float32(1.5)
    light *= shift.glass.astype(np.float32)
    light += grain[..., None]
    return np.asarray(np.clip(light, 0, 255), np.uint8)
