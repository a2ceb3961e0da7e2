"""Store the message that a relay is handling, so that its successor can answer for it.

Flower would wait for two missed heartbeats, a minute, before it gives such a message up. The file
is beside the secret that SuperNode and relay share, in a folder of their user alone; it holds no
content, and its token is worth nothing once the message is answered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class PendingTask:
    """The message that the relay is handling.

    Args:
        secret: File that SuperNode and relay share.
    """

    def __init__(self, secret: Path) -> None:
        self._path = secret.with_name(f"{secret.name}.task")

    @contextmanager
    def noted(self, token: str, envelope: bytes) -> Iterator[None]:
        """Have token and envelope on file inside the block; a full disk is no obstacle."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(f"{token} {envelope.hex()}")
        try:
            yield
        finally:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def left_behind(self) -> tuple[str, bytes] | None:
        """Return token and envelope that an earlier relay left, once; None if it left none."""
        try:
            token, envelope = self._path.read_text(encoding="ascii").split()
            self._path.unlink()
            return token, bytes.fromhex(envelope)
        except (OSError, ValueError):
            return None
