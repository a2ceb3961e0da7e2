"""Derive what a release cost from the noise it recorded, not from what it was charged.

Formulas are those of the mechanisms alone (Gaussian: Dong, Roth and Su, 2022); nothing here reads
`mu_squared`, so a line that was charged too little is found out.
"""

import math

from common.ledger.ledger_entry import SpendEntry

ROUNDING = 1.001
"""Rounding a sum to integers moves each coordinate by up to 1, and its last bits a little more."""

TOLERANCE = 1e-3
"""How much a charge may lie below its cause; it covers the last bits of what is recorded."""


def mu_squared_from_noise(entry: SpendEntry) -> float | None:
    """Return mu^2 of a Gaussian or Skellam release from its recorded noise.

    The noise is `shares` times `share_variance_steps`, in squared steps of the grid; one patient
    changes a sum by clip / step, and rounding by at most 1 in each of `dimension` coordinates.
    Lines without these record `sigma`, noise over sensitivity. Every one of `releases_per_round`
    has that noise.

    Returns:
        mu^2, or None where the line records neither: charges of an administrator.
    """
    numbers = {k: v for k, v in entry.parameters.items() if isinstance(v, int | float) and v > 0}
    releases = numbers.get("releases_per_round", 1)
    try:
        variance = numbers["share_variance_steps"] * numbers["shares"]
        reach = numbers["clip"] / numbers["step"] + ROUNDING * math.sqrt(numbers["dimension"])
    except KeyError:
        sigma = numbers.get("sigma")
        return None if sigma is None else releases / sigma**2
    return releases * reach**2 / variance


def pure_from_noise(entry: SpendEntry) -> float | None:
    """Return the pure epsilon of a geometric release: that of its tables, added up.

    Returns:
        None where the line names no tables, or the release is of another kind.
    """
    tables = entry.table_epsilons
    return None if tables is None else math.fsum(tables)


def is_undercharged(entry: SpendEntry) -> bool:
    """Return whether a release was charged less than its recorded noise says."""
    pure = pure_from_noise(entry)
    if pure is not None:
        return (entry.pure or 0.0) < pure * (1 - TOLERANCE)
    total = mu_squared_from_noise(entry) if entry.mechanism != "none" else None
    is_sampled = entry.parameters.get("sampling_rate", 1.0) != 1.0
    return total is not None and not is_sampled and entry.mu_squared < total * (1 - TOLERANCE)
