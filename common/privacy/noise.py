"""Draw privacy noise from a cryptographic generator.

Every call draws a fresh 256-bit key from the operating system and reads a ChaCha20 stream under
it: there is no seed, no state that a fork or a snapshot could repeat, and nothing to configure.

**Skellam** noise is the difference of two Poisson draws; sums of Skellam draws are Skellam.
Large means use transformed rejection (Hoermann, 1993, algorithm PTRS) with the log-probability
in saddle-point form (Loader, 2000). numpy's own Poisson sampler forms that logarithm as a
difference of terms of size mean * log(mean) and so loses its last digits: at a mean of 2^40 an
acceptance probability may be off by 1 %. Here that logarithm is right to 1e-14, and an
integer's probability to a relative error below 2^-24 up to a mean of 2^50 (53-bit uniforms
stretched over at most 2^29 integers). Such errors have no common sign: over 10^8 draws they move
the privacy loss by about sqrt(10^8) * 2^-24 = 6e-4.
"""

import math
import os

import numpy as np
import numpy.typing as npt
import scipy
from randomgen import ChaCha

from common.errors import PrivacyError

Shape = int | tuple[int, ...]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

MAX_VARIANCE = 2.0**51
"""Largest Skellam variance of one draw: all integers within many standard deviations are exact in
float64."""

_SMALL_MEAN = 2.0**16
_BLOCK = 2**18


def gaussian(shape: Shape, sd: float) -> Float64:
    """Return Gaussian noise, float64.

    Continuous noise on floating-point numbers can leak through the spacing of its possible
    values (Mironov, 2012); releases therefore use `skellam` on an integer grid
    (`common.privacy.integer_encoding`). This sampler serves audits and synthetic canaries.

    Args:
        shape: Shape of the answer.
        sd: Standard deviation, >= 0.

    Raises:
        PrivacyError: sd is negative or not finite.
    """
    _check("standard deviation", sd, math.inf)
    uniform = _generator().random(shape)
    return np.asarray(sd * scipy.special.ndtri(np.maximum(uniform, 2.0**-54)), dtype=np.float64)


def skellam(shape: Shape, variance: float) -> Int64:
    """Return Skellam noise of mean 0, int64.

    Args:
        shape: Shape of the answer.
        variance: Variance of every draw, >= 0; sums of draws add up their variances exactly.

    Raises:
        PrivacyError: The variance is negative, not finite or above 2^60.
    """
    _check("variance", variance, 2.0**60)
    if variance > MAX_VARIANCE:  # sums of independent draws are exact, and Skellam again
        parts = math.ceil(variance / MAX_VARIANCE)
        return np.asarray(sum(skellam(shape, variance / parts) for _ in range(parts)))
    size = math.prod(shape) if isinstance(shape, tuple) else shape
    generator = _generator()
    mean = variance / 2
    if mean < _SMALL_MEAN:
        difference = generator.poisson(mean, size) - generator.poisson(mean, size)
        return np.asarray(difference, dtype=np.int64).reshape(shape)
    noise = np.empty(size, dtype=np.int64)
    for start in range(0, size, _BLOCK):
        count = min(_BLOCK, size - start)
        block = _centred_poisson(generator, mean, 2 * count)
        noise[start : start + count] = block[:count] - block[count:]
    return noise.reshape(shape)


def geometric_share(shape: Shape, epsilon: float, shares: int) -> Int64:
    """Return one site's share of two-sided geometric noise, int64.

    The difference of two negative binomials of shape 1/shares: the sum over `shares` sites is
    two-sided geometric, P(k) proportional to e^(-epsilon |k|), which makes a table of L1
    sensitivity 1 epsilon-DP (Ghosh et al., 2012; Goryczka and Xiong, 2017).

    Args:
        shape: Shape of the answer.
        epsilon: Epsilon over L1 sensitivity, > 0.
        shares: Number of shares that make up the noise, n_min - t; 1 = the whole noise.

    Raises:
        PrivacyError: epsilon or shares is out of range.
    """
    if not (1e-6 <= epsilon <= 50 and shares >= 1):
        raise PrivacyError(
            f"no geometric noise for epsilon {epsilon:g} in {shares} shares",
            why="epsilon must lie within 1e-6 and 50, shares must be at least 1",
        )
    generator = _generator()
    success = -math.expm1(-epsilon)
    draws = [generator.negative_binomial(1 / shares, success, shape) for _ in range(2)]
    return np.asarray(draws[0] - draws[1], dtype=np.int64)


def _generator() -> np.random.Generator:
    return np.random.Generator(ChaCha(key=int.from_bytes(os.urandom(32), "little"), rounds=20))


def _check(name: str, value: float, limit: float) -> None:
    if not (math.isfinite(value) and 0 <= value <= limit):
        raise PrivacyError(
            f"a {name} of {value:g} is not noise", why=f"it must be finite, 0 to {limit:g}"
        )


def _centred_poisson(generator: np.random.Generator, mean: float, size: int) -> Int64:
    """Return draws of Poisson(mean) - floor(mean), (size,)."""
    draws = np.empty(size, dtype=np.int64)
    todo = np.arange(size)
    while len(todo):
        values, accepted = _propose(generator, mean, len(todo))
        draws[todo[accepted]] = values[accepted]
        todo = todo[~accepted]
    return draws


def _propose(
    generator: np.random.Generator, mean: float, size: int
) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Return (proposals relative to floor(mean), whether each is accepted), (size,) each."""
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    u = generator.random(size) - 0.5
    v = generator.random(size)
    us = np.maximum(0.5 - np.abs(u), 2.0**-54)
    fraction = mean - math.floor(mean)
    offset = np.floor((2 * a / us + b) * u + (fraction + 0.43))
    accepted = (us >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
    doubtful = np.flatnonzero(~accepted & (offset > -mean) & ((us >= 0.013) | (v <= us)))
    vd, usd = np.maximum(v[doubtful], 2.0**-54), us[doubtful]
    height = np.log(vd * inverse_alpha / (a / usd**2 + b))
    accepted[doubtful] = height <= _log_probability(offset[doubtful] - fraction, mean)
    return np.where(np.abs(offset) < 2.0**52, offset, 0).astype(np.int64), accepted


def _log_probability(excess: Float64, mean: float) -> Float64:
    """Return log P(Poisson(mean) = mean + excess), in Loader's form without cancellation."""
    e = excess / mean
    k = mean + excess
    series = np.zeros_like(e)
    for n in range(16, 1, -1):
        series = series * -e + 1.0 / (n * (n - 1))
    deviance = np.where(np.abs(e) < 0.05, e * e * series, (1 + e) * np.log1p(e) - e)
    stirling = 1 / (12 * k) - 1 / (360 * k**3)
    return np.asarray(-mean * deviance - stirling - 0.5 * np.log(2 * math.pi * k))
