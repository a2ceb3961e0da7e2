"""Bound the length of an opened sum of clipped gradients by public numbers alone.

A hospital shortens its own sum g to at most C n before it adds noise, n its public nominal count
of patients (`capped`): a projection on a ball, which brings no two neighbouring sums further
apart, so one patient still changes it by at most C. With B = C (sum of n) / s in integer steps and
noise of variance V, an opened sum y of d coordinates from k hospitals then obeys

    |y| <= sqrt(B^2 + 2 B sqrt(V) x + V (sqrt(d) + x)^2) + (k + 1) sqrt(d) / 2

except with probability 1.5 e^(-x^2 / 2) e^kappa + d 2^-100, kappa as in `skellam_closeness`.
**Proof.** Up to kappa and those tails the noise is a rounded Gaussian vector round(G) of variance
below V; each of the k + 1 roundings moves y by at most sqrt(d) / 2. Of |S + G|^2 the cross term
2 <S, G> is Gaussian of deviation 2 |S| sqrt(V) <= 2 B sqrt(V) and exceeds x of them with
probability below e^(-x^2 / 2) / 2; |G| exceeds its mean, at most sqrt(V d), by x sqrt(V) with
probability below e^(-x^2 / 2), being 1-Lipschitz in a Gaussian vector (Borell, 1975).

A longer sum holds a lie. One that passes can still hold one: a lie as long as
sqrt(bound^2 - |noise|^2), which is B where the noise is short and several times B where it is long.
"""

import math

import numpy as np

from common.privacy.integer_encoding import Float64, IntegerEncoding

SPREADS = 8.0
"""x: an honest sum is longer with probability below 3e-14."""

_ROUND_UP = 1 + 1e-9
"""Room for the last bits of a norm in float64."""


def longest_sum(encoding: IntegerEncoding, patients: float, n_sites: int) -> float:
    """Return the length that an opened sum of honest hospitals does not exceed, gradient units.

    Args:
        encoding: How the sum was rounded and noised.
        patients: Public nominal patients of the hospitals in the sum.
        n_sites: Number of hospitals in it.
    """
    sd, root = encoding.noise_sd(n_sites), math.sqrt(encoding.dimension)
    held = encoding.clip * patients
    squared = held**2 + 2 * held * sd * SPREADS + (sd * (root + SPREADS)) ** 2
    rounding = (n_sites + 1) * root / 2 * encoding.step
    return (math.sqrt(squared) + rounding) * _ROUND_UP


def capped(vector: Float64, longest: float) -> Float64:
    """Return a vector (d,), shortened to `longest` if it is longer; its direction stays."""
    length = math.sqrt(float(np.square(vector).sum()))  # numpy adds in pairs: right to 1e-14
    return vector * (longest / length) if length > longest else vector
