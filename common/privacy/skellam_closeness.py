"""Bound how far Skellam noise is from rounded Gaussian noise, so that it may be charged as such.

Let p be the Skellam distribution of variance V >= 2^20 and q the Gaussian of variance
v = V - 1/12, rounded to whole numbers. For every |k| <= 12 sqrt(V)

    |log p(k) - log q(k)| <= 920 / V,

and outside each has less than 2^-100 of its mass. **Proof.** Tilting p to mean k gives
p(k) = e^E b with E = -V + W - k asinh(k / V), W = sqrt(V^2 + k^2) and
b = (1 / 2 pi) int exp(-W (1 - cos t)) cos(k (t - sin t)) dt over a turn.

- E: the series -k^2/2V + k^4/24V^3 - ... alternates with falling terms, so E lies between
  -k^2/2V and -k^2/2V + k^4/24V^3, and k^4/24V^3 <= 864/V.
- b: sqrt(2 pi W) e^-W I_0(W) lies within 1 and 1 + 1/7W (Watson, 1944, section 7.31), the cosine
  is at least 1 - k^2 t^6 / 72, which moves b by less than 40/V^2 of itself, and
  0 <= log(W / V) / 2 <= k^2 / 4V^2 <= 36/V: log b + log(2 pi V) / 2 lies within -37/V and 1/7V.
- q(k) is the mean of the Gaussian density over a cell of width one: its logarithm exceeds
  -k^2/2v - log(2 pi v) / 2 by at least -1/8v and at most k^2/24v^2 <= 6.1/V; replacing v by V moves
  the first by at most k^2/24V^2 (1 + 1/V) <= 6.1/V and the second by at most 1/12V.

Upwards 864 + 1/7 + 1/8 + 6.1 + 1/12, downwards 37 + 6.1 + 6.1 + 1/12: less than 920. The tails
follow from Chernoff's bound, 2 exp(-72 + 0.01) for both.

**What it is good for.** Whole numbers f plus rounded Gaussian noise are round(f + Gaussian noise),
post-processing of a Gaussian mechanism: mu-GDP with mu = (L2 sensitivity) / sqrt(v), adaptively
composed (Dong, Roth and Su, 2022). Let n releases of d coordinates each use Skellam noise instead
and kappa = n d 920 / V. Any event then has at most e^kappa times its probability plus a tail, on
either of two neighbouring cohorts, so that (epsilon, delta) for the Gaussian mechanism becomes

    (epsilon + 2 kappa, e^kappa delta + (1 + e^(epsilon + kappa)) n d 2^-100).

kappa adds up over releases. It is far below a thousandth of epsilon for the variances of
`common.privacy.integer_encoding`; it is recorded, added up and charged all the same.
"""

import math

from common.errors import PrivacyError
from common.privacy.accounting import composed_epsilon

CLOSENESS = 920.0
LOG_TAIL = -100 * math.log(2)
"""Logarithm of the mass beyond 12 standard deviations, for each coordinate and release."""

SMALLEST_VARIANCE = 2.0**20


def closeness(variance: float, coordinates: int) -> float:
    """Return kappa: bound on the log-ratio of Skellam to rounded Gaussian noise.

    Args:
        variance: V of every coordinate, in integers squared.
        coordinates: Number of coordinates, over all releases.

    Raises:
        PrivacyError: V is below `SMALLEST_VARIANCE`, where nothing is proven.
    """
    if not variance >= SMALLEST_VARIANCE:
        raise PrivacyError(
            f"Skellam noise of variance {variance:.3g} cannot be charged",
            why=f"its distance from Gaussian noise is bounded from {SMALLEST_VARIANCE:.3g} on",
            cure="use a finer step, so that the noise spans more integers",
        )
    return coordinates * CLOSENESS / variance


def skellam_epsilon(mu_squared: float, delta: float, kappa: float) -> float:
    """Return epsilon (rounded up) of Skellam releases.

    Args:
        mu_squared: Sum of mu^2 of the Gaussian mechanisms they are close to.
        delta: In (0, 1).
        kappa: Sum of their `closeness`; 0 for Gaussian releases.

    Raises:
        PrivacyError: An argument is out of range, or the tails alone exceed a millionth of delta.
    """
    if kappa == 0:
        return composed_epsilon(mu_squared, delta)
    left = delta * math.exp(-kappa) * (1 - 1e-6)
    epsilon = composed_epsilon(mu_squared, left) + 2 * kappa
    coordinates = kappa * 2.0**52  # at least as many as there are: 920 / V is above 2^-52
    if math.log(coordinates + 1) + LOG_TAIL + epsilon + 1 > math.log(delta * 1e-6):
        raise PrivacyError(
            f"delta = {delta:g} is too small for the tails of the noise",
            why="beyond 12 standard deviations nothing is proven",
            cure="use the study default, 1e-5",
        )
    return epsilon
