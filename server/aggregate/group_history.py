"""Find hospitals that pull the sums of their groups away from the others, over the rounds.

One round's group sums hide a lie in the noise: it shelters whoever shouts no louder (a rule alone
fails at epsilon 3). But groups are drawn anew every round, so their sums are equations in what each
hospital adds: least squares over the rounds, recent ones counting more, separates the hospitals
while the noise averages away. One that is farther from the median hospital, per patient, than
`FACTOR` times the median distance and `LEAST` clips, and than noise explains, is named, and sums
with it are left out. Nothing here is private: it only reads opened sums.

A lie must point the same way round after round to steer, so this is what there is to find. A lie
no louder than what hospitals differ by anyway is not found; the benchmark `steering` says what it
costs.

With noise Z of standard deviation s in each of w coordinates, |a + Z|^2 exceeds
|a|^2 + 2 |a| s r + s^2 (w + r sqrt(2 w) + r^2), r = sqrt(2 x), with probability below 2 e^-x
(Laurent and Massart, 2000): 3e-7 for an honest hospital in each round.
"""

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from common.study.private_round import encoding_of
from common.study.study import Study
from common.wire import Arrays
from server.aggregate.contribution import Contribution
from server.aggregate.cosine_monitor import sketch

FACTOR = 3.0
LEAST = 0.1
BLAMELESS = 0.2
"""Share of the farthest hospital's distance below which another is not named: a lie that changes
from round to round rubs off on those that were often in one group with it."""
DECAY = 0.97
"""Weight of a round against the next one: about 30 rounds count."""

STEERING = "steering"
"""Name of the list of suspects among the facts of a round."""

PAIRS, SUMS = "groups/pairs", "groups/sums"
"""What is remembered: how often two hospitals were in one sum (N, N), and the sums that each was
in (N, width)."""

_FEWEST_TIMES = 0.05
"""Least eigenvalue of `PAIRS` with which the equations have a solution worth a look."""

_TAIL = sqrt(2 * 16.0)

Vector = npt.NDArray[np.float64]


def remembered(
    study: Study,
    contributions: Sequence[Contribution],
    memory: Mapping[str, npt.NDArray[np.floating]],
    shapes: Mapping[str, tuple[int, ...]],
) -> Arrays:
    """Return `PAIRS` and `SUMS` after a round, float64.

    Args:
        study: Gives the roster.
        contributions: Opened sums of the round's groups.
        memory: What the last round returned; empty before the first.
        shapes: Shape of every parameter.
    """
    names = [entry.site_id for entry in study.sites]
    sums = [sketch(c.arrays, shapes) for c in contributions]
    pairs = DECAY * np.asarray(memory.get(PAIRS, np.zeros((len(names), len(names)))))
    totals = DECAY * np.asarray(memory.get(SUMS, np.zeros((len(names), len(sums[0])))))
    for contribution, total in zip(contributions, sums, strict=True):
        present = np.array([name in contribution.members for name in names], dtype=np.float64)
        pairs = pairs + np.outer(present, present)
        totals = totals + np.outer(present, total)
    return {PAIRS: pairs, SUMS: totals}


def steering_sites(facts: Mapping[str, JsonValue]) -> set[str]:
    """Return the suspects of a round, from the facts of its record."""
    named = facts.get(STEERING)
    return {str(name) for name in named} if isinstance(named, list) else set()


def suspects(study: Study, memory: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the hospitals that pull their sums away from the others; none before it is sure."""
    names = np.array([entry.site_id for entry in study.sites])
    present_twice = np.diagonal(memory[PAIRS]) > 1
    pairs, sums = memory[PAIRS][np.ix_(present_twice, present_twice)], memory[SUMS][present_twice]
    if len(pairs) < 3 or np.linalg.eigvalsh(pairs)[0] < _FEWEST_TIMES:
        return []
    encoding = encoding_of(study, shapes)
    largest = -(-len(names) // study.privacy.groups)
    patients = np.array([study.nominal_by_site[name] for name in names[present_twice]])
    inverse, width = np.linalg.inv(pairs), sums.shape[1]
    each = inverse @ sums / patients[:, None]
    # Rounds weigh at most 1, so the inverse bounds the variance of weighted least squares.
    sd = encoding.noise_sd(largest) * np.sqrt(np.diagonal(inverse)) / patients
    sd *= sqrt(encoding.dimension / width)
    squared = np.square(each - np.median(each, axis=0)).sum(axis=1)
    typical = np.median(np.sqrt(np.maximum(squared - width * sd**2, 0)))
    usual = max(FACTOR * float(typical), LEAST * encoding.clip)
    noise = sd**2 * (width + _TAIL * sqrt(2 * width) + _TAIL**2)
    far = squared > usual**2 + 2 * usual * sd * _TAIL + noise
    far &= squared > BLAMELESS**2 * squared.max()
    return [str(name) for name in sorted(names[present_twice][far])]
