"""Store the server's state of a run's secure sums on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from common.contract import Contract
from common.errors import RunError
from common.secure_sum.keys import KeyAdvert
from common.storage.atomic_file import write_text

STATE_FILE = "secure_sums.json"


class ClosedUploads(Contract):
    """The one list of survivors that sites received for a sum."""

    number: int
    survivors: list[str]


class SecureState(Contract):
    """Keys in force and the sums they were used for; holds no secret.

    Attributes:
        session: Number of the key agreement; 0 before the first.
        adverts: Signed public keys of its participants.
        agreed: Participants that confirmed them.
        closed: Last list of survivors that was sent.
        numbers: Name of an evaluation -> number of its secure sum.
    """

    session: int = Field(default=0, ge=0)
    adverts: list[KeyAdvert] = Field(default_factory=list)
    agreed: list[str] = Field(default_factory=list)
    closed: ClosedUploads | None = None
    numbers: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def load(cls, run_dir: Path) -> Self:
        """Return the stored state, or an empty one.

        Raises:
            RunError: The file is damaged.
        """
        path = run_dir / STATE_FILE
        if not path.is_file():
            return cls()
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError):
            raise RunError(
                "the record of the secure sums cannot be read",
                where=str(path),
                cure="restore it from a backup, or start again in an empty folder",
            ) from None

    def save(self, run_dir: Path) -> None:
        """Write the state durably."""
        write_text(run_dir / STATE_FILE, self.model_dump_json(indent=1))
