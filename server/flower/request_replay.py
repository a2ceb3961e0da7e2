"""Refuse signed requests of SuperNodes that were seen before.

Flower's node authentication signs a time stamp and nothing else, and accepts it for 305 s: whoever
reads one request, in a proxy for instance, could send it again, or put its headers before a
message of his own. A SuperNode signs every request again, so the same time stamp under the same
key is a copy.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import UTC, datetime

from server.flower.flower_internals import STAMP_VALID_S

KEPT_S = STAMP_VALID_S + 15.0

MOST_KEPT = 1_000_000


class RequestHistory:
    """Time stamps by key, for as long as they could be used again."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._started = datetime.now(UTC)

    def is_copy(self, key: str, stamp: str) -> bool:
        """Return whether this stamp of this key was seen before, and remember it."""
        now = time.monotonic()
        while self._seen and (
            now - next(iter(self._seen.values())) > KEPT_S or len(self._seen) > MOST_KEPT
        ):
            self._seen.popitem(last=False)
        if (key, stamp) in self._seen:
            return True
        self._seen[key, stamp] = now
        return False

    def forget(self, key: str, stamp: str) -> None:
        """Forget a request whose signature turned out to be false."""
        self._seen.pop((key, stamp), None)

    def is_from_before(self, stamp: str) -> bool:
        """Return whether a stamp is older than this server, and not too old for Flower.

        What was seen before the start is forgotten. Whatever is older still, or cannot be read,
        Flower itself refuses.
        """
        try:
            signed = datetime.fromisoformat(stamp)
        except ValueError:
            return False
        if signed.tzinfo is None:
            return False
        recent = (datetime.now(UTC) - signed).total_seconds() < KEPT_S
        return recent and signed < self._started
