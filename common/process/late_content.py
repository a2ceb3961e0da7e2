"""Flower waits a second or more for a part of a message that is not there yet; here far less.

A message is visible a moment before its content. Whoever looks often meets that moment in every
exchange, and Flower's first pause is 1 s, the next 2 s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FIRST_S = 0.02
LONGEST_S = 1.0
MOST_TRIES = 7200
"""With the longest pause as long as Flower itself waits: two hours."""


def shorten_waits(*pulls: Callable[..., Any]) -> None:
    """Let functions look again for missing content after 20 ms, then less and less often.

    This leans on internal names of Flower; Flower is pinned, and a test drives the real ones.

    Args:
        pulls: Flower's `pull_objects` and `pull_and_inflate_object_from_tree`.
    """
    changed = {
        "initial_backoff": FIRST_S,
        "backoff_cap": LONGEST_S,
        "max_tries_per_object": MOST_TRIES,
    }
    for pull in pulls:
        defaults: dict[str, object] = getattr(pull, "__kwdefaults__", None) or {}
        unknown = set(changed) - set(defaults)
        if unknown:
            raise TypeError(f"{pull.__name__} has no default for {sorted(unknown)}")
        pull.__kwdefaults__ = {**defaults, **changed}
