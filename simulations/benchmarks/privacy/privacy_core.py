"""Check accounting against outside truth, and noise against its design.

Epsilons are compared with the closed form evaluated with 60 digits and with privacy loss
distributions. Noise comes from the operating system and has no seed, so its tests are repeated
and held to bounds that a right sampler breaks once in ten thousand runs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import ive

from common.optional import require
from common.privacy.accountants import pld_epsilon, rdp_epsilon
from common.privacy.accounting import (
    composed_epsilon,
    fallback_epsilon,
    gaussian_epsilon,
    training_sigma,
)
from common.privacy.integer_encoding import IntegerEncoding
from common.privacy.noise import geometric_share, skellam
from simulations.benchmarks.parts.check import Check, Size
from simulations.benchmarks.parts.command import main

DURATION = "about 1 minute"
DELTA = 1e-5

DESIGN_TABLE = [(1.0, 10.0, 50, 2.943), (0.25, 3.0, 100, 3.817), (0.05, 0.8, 400, 10.733)]
"""Sampling rate, sigma, rounds, epsilon by PLD at delta 1e-5."""

UNLIKELY = 1e-4
"""Least p of each test, over all its repeats."""


@dataclass(frozen=True)
class NoiseSize(Size):
    """So many draws of noise, so many times."""

    draws: int = 1_000_000
    repeats: int = 5


FULL, MINIATURE = NoiseSize(seeds=(7,)), NoiseSize(seeds=(7,), draws=20_000, repeats=2)


def checks(data: Path, size: NoiseSize) -> Iterator[Check]:
    """Yield the checks; real data is not needed."""
    yield from _closed_form()
    yield from _accountants()
    yield from _variance(size)
    yield from _shape(size)
    yield from _neighbours(size)


def _closed_form() -> Iterator[Check]:
    excess, short = 0.0, 0.0
    for mu in (0.05, 0.2, 0.7, 1.0, 2.0, 5.0):
        for delta in (1e-9, 1e-7, 1e-5, 1e-3):
            exact = _exact_epsilon(mu, delta)
            relative = gaussian_epsilon(mu, delta) / exact - 1
            excess, short = max(excess, relative), min(short, relative)
    yield Check("largest relative excess of epsilon over 60 digits", excess, 5e-3, "<=")
    yield Check("smallest (never below the truth)", short, -1e-14, ">=")
    for epsilon, expected in ((1.0, 2.4), (3.0, 7.7), (8.0, 22.2)):
        found = fallback_epsilon(epsilon, DELTA, 5)
        what = f"fallback of epsilon {epsilon:g}, six sites, t = 1, against {expected}"
        yield Check(what, abs(found - expected), 0.05, "<=", f"{found:.3f}")


def _accountants() -> Iterator[Check]:
    for rate, sigma, rounds, expected in DESIGN_TABLE:
        found = pld_epsilon(sigma, rounds, DELTA, sampling_rate=rate)
        what = f"PLD at rate {rate:g}, sigma {sigma:g}, {rounds} rounds, against {expected}"
        yield Check(what, abs(found - expected), 1e-3, "<=", f"{found:.4f}")
        cross = rdp_epsilon(sigma, rounds, DELTA, sampling_rate=rate)
        what = f"Renyi epsilon over that by PLD at rate {rate:g}"
        yield Check(what, cross / found, 1.0, ">=", f"{cross:.4f}")
    for epsilon in (1.0, 3.0, 8.0):
        sigma = training_sigma(epsilon, DELTA, 100)
        closed, pld = composed_epsilon(100 / sigma**2, DELTA), pld_epsilon(sigma, 100, DELTA)
        what = f"closed form and PLD apart at epsilon {epsilon:g}, relative"
        yield Check(what, abs(closed / pld - 1), 5e-3, "<=")
        kappa = 100 * IntegerEncoding(0.3, sigma, 10_000, 4, 6).closeness
        yield Check(
            f"Skellam noise adds to epsilon {epsilon:g}, of it", 2 * kappa / epsilon, 1e-3, "<"
        )


def _variance(size: NoiseSize) -> Iterator[Check]:
    coder = _coder()
    ratios = []
    for _ in range(size.repeats):
        total = sum(skellam(size.draws, coder.share_variance) for _ in range(coder.shares))
        ratios.append(float(np.var(np.asarray(total))) / coder.total_variance)
    worst = max(ratios, key=lambda ratio: abs(ratio - 1))
    yield Check(
        f"variance of {coder.shares} shares, off by",
        abs(worst - 1),
        0.01,
        "<=",
        f"mean {np.mean(ratios):.5f}, SD {np.std(ratios):.5f}, {size.repeats} x {size.draws} draws",
        full_size=True,
    )
    table = sum(geometric_share(size.draws, 1.0, 4) for _ in range(4))
    off = float(np.var(np.asarray(table))) / float(stats.dlaplace(1.0).var()) - 1
    yield Check("variance of 4 geometric shares, off by", abs(off), 0.01, "<=", full_size=True)


def _shape(size: NoiseSize) -> Iterator[Check]:
    coder = _coder()
    found: dict[str, list[float]] = {}
    for _ in range(size.repeats):
        small = sum(skellam(size.draws, 100.0) for _ in range(4))
        total = np.asarray(
            sum(skellam(size.draws, coder.share_variance) for _ in range(coder.shares))
        )
        scaled = total[:200_000] / math.sqrt(coder.total_variance)
        bits = np.bincount(total & 31, minlength=32)
        for name, p in (
            ("chi-square", _chi_square(np.asarray(small), 400.0)),
            ("Kolmogorov-Smirnov", stats.kstest(scaled, "norm").pvalue),
            ("last five bits", stats.chisquare(bits).pvalue),
        ):
            found.setdefault(name, []).append(float(p))
    for name, values in found.items():
        what = f"smallest p of all repeats ({name})"
        yield Check(what, min(values), UNLIKELY / size.repeats, ">")


def _neighbours(size: NoiseSize) -> Iterator[Check]:
    """Noise of n and n - 1 patients: the scale must not reveal which."""
    coder = IntegerEncoding(0.3, 13.9, size.draws, 4, 6)
    dice = np.random.default_rng(7)
    patient = dice.standard_normal(size.draws)
    patient *= 0.3 / np.linalg.norm(patient)
    cohort = dice.normal(0, 1e-3, size.draws)
    scales = []
    for vector in (cohort, cohort + patient):
        noise = coder.noised(vector) - coder.encode(vector)
        scales.append(float(np.var(noise)))
    below = float(stats.f.cdf(scales[0] / scales[1], size.draws - 1, size.draws - 1))
    p = 2 * min(below, 1 - below)
    yield Check("p that n and n - 1 patients have one noise scale (F test)", p, UNLIKELY, ">")


def _coder() -> IntegerEncoding:
    return IntegerEncoding(0.3, training_sigma(3.0, DELTA, 100), 10_000, 4, 6)


def _exact_epsilon(mu: float, delta: float) -> float:
    mpmath = require("mpmath", extra="dev")
    mpmath.mp.dps = 60
    m = mpmath.mpf(mu)

    def excess(epsilon: Any) -> Any:
        upper = mpmath.ncdf(-epsilon / m + m / 2)
        return upper - mpmath.exp(epsilon) * mpmath.ncdf(-epsilon / m - m / 2) - delta

    start = mpmath.mpf(gaussian_epsilon(mu, delta))
    return float(mpmath.findroot(excess, (start * 0.999, start * 1.001), solver="anderson"))


def _chi_square(draws: Any, variance: float) -> float:
    reach = int(12 * math.sqrt(variance)) + 5
    cdf = np.cumsum(ive(np.abs(np.arange(-reach, reach + 1)), variance))
    edges = np.unique(np.searchsorted(cdf, np.linspace(0, 1, 100)[1:-1]))
    expected = np.diff(np.concatenate([[0], cdf[edges], [1]]))
    seen = np.bincount(np.searchsorted(edges - reach, draws), minlength=len(expected))
    return float(stats.chisquare(seen, expected * len(draws)).pvalue)


if __name__ == "__main__":
    main(__file__)
