"""Format numbers, times and commands for a live page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from common.commands.cli_output import clock

DASH = "–"


def number(value: float | None) -> str:
    """Return a number with three digits that count, a dash for None.

    Example:
        >>> number(0.12345), number(3.0), number(None), number(1e-5), number(12345.6)
        ('0.123', '3', '–', '1e-05', '12346')
    """
    if value is None:
        return DASH
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Return a duration as people read it, a dash for None."""
    if seconds is None:
        return DASH
    return f"{seconds:.2g} s" if seconds < 10 else clock(seconds)


def moment(value: datetime | None) -> str:
    """Return a moment in UTC.

    Example:
        >>> moment(datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))
        '2030-01-02 03:04:05 UTC'
    """
    if value is None:
        return DASH
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def commands(text: str) -> Markup:
    """Return a sentence with what is in backticks as code.

    Example:
        >>> commands("Run `a <b>` again.")
        Markup('Run <code>a &lt;b&gt;</code> again.')
    """
    parts = text.split("`")
    pieces = [f"<code>{escape(p)}</code>" if i % 2 else escape(p) for i, p in enumerate(parts)]
    return Markup("").join(Markup(part) for part in pieces)


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "duration": duration,
    "moment": moment,
    "commands": commands,
}
"""Filters of the templates, by name."""
