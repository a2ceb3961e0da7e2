"""What a relay that is killed leaves to the next one: the token of the message it had in hand.

Flower would wait for two missed heartbeats, 20 s, before it gives such a message up. The token lies
beside the secret that SuperNode and relay share, in a folder of their user alone, and is worth
nothing once the message is answered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOST = "the relay lost the message"
"""What Flower is told of a message that was lost; the SuperNode looks for it."""


class TaskInHand:
    """The message that the relay is working on.

    Args:
        secret: File that SuperNode and relay share.
    """

    def __init__(self, secret: Path) -> None:
        self._path = secret.with_name(f"{secret.name}.task")

    @contextmanager
    def noted(self, token: str) -> Iterator[None]:
        """Have the token on file inside the block; a full disk is no obstacle."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(token)
        try:
            yield
        finally:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def left_behind(self) -> str:
        """Return the token that an earlier relay left, once; empty if it left none."""
        try:
            token = self._path.read_text(encoding="ascii").strip()
            self._path.unlink()
        except (OSError, UnicodeDecodeError):
            return ""
        return token


def answering_lost(finish: Callable[..., bool]) -> Callable[..., bool]:
    """Return Flower's step that ends a task, with an answer at once for a message that was lost.

    Args:
        finish: `finish_task` of Flower's node state; Flower itself answers only after it has
            missed the heartbeats of a task.
    """

    def finish_and_answer(state: Any, task_id: int, sub_status: str, details: str) -> bool:
        finished = finish(state, task_id, sub_status, details)
        if finished and details == LOST:
            state._on_task_tokens_expired(state.get_tasks(task_ids=[task_id]))
        return finished

    return finish_and_answer
