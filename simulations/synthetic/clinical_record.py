"""Draw the clinical columns of synthetic patients.

The clinical factor z shows in age, stage, performance status, lactate dehydrogenase and
haemoglobin, each with noise of its own. Sex and histology say nothing.
"""

from typing import Final

import numpy as np

STAGES: Final = ("I", "II", "III", "IV")
SEXES: Final = ("female", "male")
HISTOLOGIES: Final = ("keratinising", "non-keratinising", "basaloid")
COLUMNS: Final = ("age", "sex", "stage", "histology", "ecog", "ldh", "haemoglobin")
"""Age in years, ecog 0-3, ldh in U/l, haemoglobin in g/dl."""

_MAY_BE_EMPTY: Final = ("stage", "histology", "ecog", "ldh", "haemoglobin")


def draw_record(
    latent: float, missing_share: float, generator: np.random.Generator
) -> dict[str, str | float | None]:
    """Return the columns of one patient, single cells missing at random.

    Args:
        latent: Clinical factor, higher = worse.
        missing_share: Chance that a cell other than age and sex is empty.
        generator: Source of everything random.
    """

    def trait(share: float) -> float:
        return share * latent + float(np.sqrt(1 - share**2) * generator.standard_normal())

    record: dict[str, str | float | None] = {
        "age": float(np.clip(round(59 + 9 * trait(0.75)), 21, 92)),
        "sex": SEXES[int(generator.random() < 0.6)],
        "stage": STAGES[int(np.searchsorted([-1.0, -0.1, 0.9], trait(0.85)))],
        "histology": HISTOLOGIES[int(generator.choice(3, p=[0.5, 0.35, 0.15]))],
        "ecog": float(np.searchsorted([0.0, 1.0, 2.0], trait(0.8))),
        "ldh": float(np.round(np.exp(np.log(220) + 0.3 * trait(0.96)))),
        "haemoglobin": float(np.round(13.3 - 1.3 * trait(0.9), 1)),
    }
    for name in _MAY_BE_EMPTY:
        if generator.random() < missing_share:
            record[name] = None
    return record


def empty_record() -> dict[str, str | float | None]:
    """Return the record of a patient without clinical data."""
    return dict.fromkeys(COLUMNS)
