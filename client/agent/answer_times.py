"""Answer at fixed times, so that how long a hospital computed does not tell its cohort's size."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger("tumorboard.agent")


@contextmanager
def fixed_times(seconds: float | None) -> Iterator[None]:
    """Leave the block at a multiple of `seconds` after it was entered, however it ends.

    Args:
        seconds: `privacy.answer_seconds` of the study; None leaves at once.
    """
    start = time.monotonic()
    try:
        yield
    finally:
        if seconds is not None:
            steps = max(math.ceil((time.monotonic() - start) / seconds), 1)
            if steps > 1:
                _log.warning(
                    "the computation took longer than privacy.answer_seconds (%g s): that it did "
                    "shows; the next study needs a longer time",
                    seconds,
                )
            time.sleep(max(start + steps * seconds - time.monotonic(), 0))
