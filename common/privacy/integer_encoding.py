"""Encode a sum of clipped gradients as noised integers, and decode it.

A site sends y = round(g / s) + Z: rounding comes before the noise (Kairouz et al., 2021), and
nothing is clipped, saturated or rounded after it. Z is Skellam noise of variance
(sigma Delta)^2 / shares; sums of shares are Skellam again (Agarwal et al., 2021).

**Sensitivity.** One patient moves g by at most C in L2 norm. Rounding moves each of d coordinates
by at most one more, so the integers move by at most Delta = C/s + sqrt(d). The noise is scaled to
Delta: rounding costs nothing of the guarantee. The step s is C / 2^m with the largest m for which
the sampler is exact and no sum overflows; sqrt(d) is then far below 0.1 % of 2^m.

**Skellam against Gaussian.** V = (sigma Delta)^2 + 1/12 makes a round cost mu^2 = 1 / sigma^2 and,
for the difference between Skellam and Gaussian noise, `closeness`; see
`common.privacy.skellam_closeness` for the proof and for what both come to.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from common.errors import ErrorCode, PrivacyError
from common.privacy.noise import MAX_VARIANCE, skellam
from common.privacy.skellam_closeness import SMALLEST_VARIANCE, closeness

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

MAX_PATIENTS = 2**16
"""Public bound on one site's patients; sums of more would be refused before any is read."""

MODULUS_BITS = 64
"""Sums are taken modulo 2^64."""

_INFLATION = 0.1
"""Most that rounding may add to the sensitivity, as noise; it is far less for small models."""

_SLACK = 1.001
"""Room in sqrt(d) for the last bits of g / s in float64."""


@dataclass(frozen=True)
class IntegerEncoding:
    """How the sums of one study become integers; public, and the same at all sites.

    Attributes:
        clip: L2 bound C of one patient's gradient.
        sigma: Noise multiplier: noise of the opened sum over the sensitivity.
        dimension: Number d of coordinates.
        shares: Honest shares n_min - t that make up the noise; 1 = mode local.
        n_sites: Sites whose integers may be added up.
        max_patients: Public bound on one site's patients.

    Raises:
        PrivacyError: The numbers do not fit: a sum could overflow, or the noise be too coarse.
    """

    clip: float
    sigma: float
    dimension: int
    shares: int = 1
    n_sites: int = 1
    max_patients: int = MAX_PATIENTS

    def __post_init__(self) -> None:
        if not (self.clip > 0 and self.sigma > 0 and self.dimension > 0 and self.shares > 0):
            raise PrivacyError("clip, sigma, dimension and shares must be positive")
        fine = math.sqrt(self.dimension) <= _INFLATION * 2.0**self.step_bits
        if not fine or self.total_variance / self.shares < SMALLEST_VARIANCE:
            raise PrivacyError(
                "whole numbers are too coarse for this sum",
                why=f"the clip spans 2^{self.step_bits} steps of {self.dimension} coordinates, "
                f"the noise of {self.n_sites} hospitals {self.noise_sd_steps:.3g} steps",
                cure="use a model with fewer parameters, or fewer hospitals",
            )

    @property
    def step_bits(self) -> int:
        """Power of two m with C/s = 2^m: the finest step that sampler and modulus allow."""
        exact = math.sqrt(MAX_VARIANCE * self.shares / 1.1) / self.sigma
        reach = self.n_sites * (self.max_patients + 12 * self.sigma * 1.1)
        return math.floor(math.log2(min(exact, 2.0 ** (MODULUS_BITS - 1) / reach)))

    @property
    def step(self) -> float:
        """Step s in gradient units: the value of one integer."""
        return float(self.clip * 2.0**-self.step_bits)

    @property
    def sensitivity(self) -> float:
        """Delta: L2 bound on what one patient changes, in integers."""
        return float(2.0**self.step_bits + _SLACK * math.sqrt(self.dimension))

    @property
    def total_variance(self) -> float:
        """Variance of the noise of `shares` sites together, in integers squared."""
        return (self.sigma * self.sensitivity) ** 2 + 1 / 12

    @property
    def share_variance(self) -> float:
        """Variance of one site's noise, in integers squared."""
        return self.total_variance / self.shares

    @property
    def noise_sd_steps(self) -> float:
        """Standard deviation of the designed noise, in integers."""
        return math.sqrt(self.total_variance)

    @property
    def mu_squared(self) -> float:
        """What one round costs in the ledger, with up to t colluders."""
        return 1.0 / self.sigma**2

    @property
    def closeness(self) -> float:
        """Kappa of one release; see `common.privacy.skellam_closeness`."""
        return closeness(self.total_variance, self.dimension)

    def noise_sd(self, n_survivors: int) -> float:
        """Return the standard deviation of the noise in an opened sum, in gradient units."""
        return self.step * math.sqrt(self.share_variance * n_survivors)

    def encode(self, vector: npt.NDArray[Any]) -> Int64:
        """Return a sum of clipped gradients as integers, without noise.

        Args:
            vector: (d,) floating.

        Raises:
            PrivacyError: The shape is another, a value is not finite, or larger than the clip
                and the public bound on patients allow.
        """
        if vector.shape != (self.dimension,):
            raise PrivacyError(f"{vector.shape} values were given, {self.dimension} are encoded")
        steps = np.rint(np.asarray(vector, dtype=np.float64) / self.step)
        if not np.isfinite(steps).all():
            raise PrivacyError("the gradient sum is not finite", code=ErrorCode.NOT_FINITE)
        if float(np.abs(steps).max()) > self.max_patients * 2**self.step_bits:
            raise PrivacyError(
                "the gradient sum is larger than clipping allows",
                why=f"a coordinate exceeds {self.max_patients} times the clip",
                cure="clip every patient's gradient before summing",
            )
        return steps.astype(np.int64)

    def noised(self, vector: npt.NDArray[Any]) -> Int64:
        """Return what a site releases: integers with its share of the noise, (d,) int64.

        Raises:
            PrivacyError: See `encode`.
        """
        return self.encode(vector) + skellam(self.dimension, self.share_variance)

    def decode(self, total: Int64) -> Float64:
        """Return an opened sum in gradient units, (d,) float64."""
        return np.asarray(total, dtype=np.float64) * self.step

    def parameters(self) -> dict[str, float | int | str]:
        """Return what the ledger records of the mechanism."""
        return {
            "sigma": self.sigma,
            "clip": self.clip,
            "sampling_rate": 1.0,
            "step": self.step,
            "sensitivity_steps": self.sensitivity,
            "share_variance_steps": self.share_variance,
            "shares": self.shares,
            "n_sites": self.n_sites,
            "modulus_bits": MODULUS_BITS,
            "dimension": self.dimension,
            "adjacency": "add or remove one patient",
        }


def flatten(arrays: Mapping[str, npt.NDArray[Any]]) -> Float64:
    """Return all arrays as one vector (d,), in the order of their names."""
    parts = [np.asarray(arrays[name], dtype=np.float64).reshape(-1) for name in sorted(arrays)]
    return np.concatenate(parts) if parts else np.zeros(0)


def unflatten(
    vector: npt.NDArray[Scalar], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, npt.NDArray[Scalar]]:
    """Return the arrays of a vector (d,); the inverse of `flatten`.

    Raises:
        PrivacyError: The vector has another length.
    """
    sizes = {name: math.prod(shapes[name]) for name in sorted(shapes)}
    if sum(sizes.values()) != len(vector):
        raise PrivacyError(f"{len(vector)} values do not fill {sum(sizes.values())} parameters")
    arrays, start = {}, 0
    for name, size in sizes.items():
        arrays[name] = vector[start : start + size].reshape(shapes[name])
        start += size
    return arrays
