"""Represent the outcomes of patients: response, and survival in months."""

import math
from collections.abc import Mapping
from typing import Final, Literal

TimeUnit = Literal["days", "months", "years"]

DAYS_PER_MONTH: Final = 30.4375
"""365.25 / 12, the mean Gregorian month used throughout."""

MONTHS_PER_UNIT: Final[Mapping[str, float]] = {
    "days": 1.0 / DAYS_PER_MONTH,
    "months": 1.0,
    "years": 12.0,
}

LONGEST_MONTHS: Final = 1200.0
"""A longer follow-up than 100 years is a wrong unit."""

MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""Cells, in lower case, that mean `not known` in outcome and path columns."""


def to_months(value: float, unit: str) -> float:
    """Return a duration in months.

    Args:
        value: Duration in `unit`.
        unit: `days`, `months` or `years`.

    Example:
        >>> to_months(365.25, "days")
        12.0
    """
    return value * MONTHS_PER_UNIT[unit]


def is_missing(cell: str) -> bool:
    """Return whether a cell of an outcome or path column means `not known`."""
    return cell.strip().lower() in MISSING


def parse_binary(cell: str) -> int | None:
    """Return 0 or 1, or None for a missing cell.

    Raises:
        ValueError: The cell is something else.
    """
    if is_missing(cell):
        return None
    number = parse_number(cell)
    if number not in (0.0, 1.0):
        raise ValueError("it must be 0 or 1, or empty when not known")
    return int(number)


def parse_number(cell: str) -> float:
    """Return a finite number.

    Raises:
        ValueError: The cell is no number, or not finite.
    """
    try:
        number = float(cell)
    except ValueError:
        comma = "write decimals with a point" if "," in cell else "write a plain number"
        raise ValueError(f"it is not a number; {comma}") from None
    if "_" in cell or not math.isfinite(number):
        raise ValueError("it is not a finite number")
    return number
