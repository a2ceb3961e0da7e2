"""Draw how hospitals differ: staining, scanner, MR intensity, sequencing batch.

Drawn once a site from its own stream. A shift changes what raw files look like and nothing about
the patients; a strength of 0 gives the public reference laboratory.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations.synthetic.streams import stream

FloatArray = npt.NDArray[np.float64]

# Optical density of haematoxylin and eosin in red, green, blue (reference of Macenko et al., 2009).
HAEMATOXYLIN = np.array([0.56, 0.72, 0.41])
EOSIN = np.array([0.22, 0.80, 0.56])


@dataclass(frozen=True)
class SiteShift:
    """Technical signature of one hospital.

    Attributes:
        stains: (2, 3) optical density of haematoxylin and eosin in RGB, unit rows.
        stain_gain: (2,) strength of both stains.
        glass: (3,) RGB of empty glass, 0-255.
        focus_px: Blur of the scanner, sigma in pixels.
        mr_gain: Intensity scale of the MR scanner.
        mr_noise: Standard deviation of MR noise, share of the brain's signal.
        mr_bias: Strength of the receive field, log units.
        batch_scale: Standard deviation of the gene-wise sequencing batch offset, log2 units.
    """

    stains: FloatArray
    stain_gain: FloatArray
    glass: FloatArray
    focus_px: float
    mr_gain: float
    mr_noise: float
    mr_bias: float
    batch_scale: float


def draw_shift(seed: int, site_id: str, strength: float) -> SiteShift:
    """Return the signature of a site.

    Args:
        seed: Seed of the consortium.
        site_id: The hospital.
        strength: 0 = reference laboratory, 1 = as between real hospitals.
    """
    generator = stream(seed, site_id, "shift")
    base = np.stack([HAEMATOXYLIN, EOSIN])
    stains = np.clip(base + strength * 0.05 * generator.standard_normal((2, 3)), 0.02, None)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    return SiteShift(
        stains=stains,
        stain_gain=np.exp(strength * 0.08 * generator.standard_normal(2)),
        glass=245 - strength * generator.uniform(0, 8, 3),
        focus_px=0.6 + strength * float(generator.uniform(0, 0.35)),
        mr_gain=float(400 * np.exp(strength * 0.5 * generator.standard_normal())),
        mr_noise=0.02 + strength * float(generator.uniform(0, 0.015)),
        mr_bias=0.08 + strength * float(generator.uniform(0, 0.12)),
        batch_scale=strength * 0.25,
    )
