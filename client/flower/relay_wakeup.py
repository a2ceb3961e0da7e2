"""Wake the relay when the SuperNode has a message: a named pipe between both.

Without it the relay would ask the SuperNode over HTTP fifty times a second whether there is a
message, and ten hospitals on one machine would do little else. The pipe is beside the secret
that both share, in a folder of their user alone; what is written into it means nothing but "look".
"""

import os
import select
import time
from contextlib import suppress
from pathlib import Path

UNHEARD_S = 0.25
"""Longest wait where there is no pipe."""


class Bell:
    """One end of the bell; every wait is bounded, so a lost ring costs a moment."""

    def __init__(self, secret: Path) -> None:
        self._path = secret.with_name(f"{secret.name}.bell")
        self._hears: int | None = None

    def ring(self) -> None:
        """Wake the relay; does nothing if none listens."""
        with suppress(OSError):  # no pipe, no listener, or it is full of rings already
            pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(pipe, b"\n")
            finally:
                os.close(pipe)

    def listen(self) -> None:
        """Hang up the bell; where no pipe can be made, a wait is a short sleep instead."""
        with suppress(OSError):
            if not self._path.is_fifo():
                self._path.unlink(missing_ok=True)
                os.mkfifo(self._path, 0o600)
            # Open for writing too: else the end of the last writer is heard for ever.
            self._hears = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self, seconds: float) -> bool:
        """Wait for a ring, but not longer than this; return whether it rang."""
        if self._hears is None:
            time.sleep(min(seconds, UNHEARD_S))
            return False
        heard, _, _ = select.select([self._hears], [], [], seconds)
        with suppress(BlockingIOError):
            while heard and os.read(self._hears, 4096):  # all rings up to now count as one
                pass
        return bool(heard)
