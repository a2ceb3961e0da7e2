"""Remember the newest ledger mark of every hospital, this one included, over all runs."""

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from common.contract import canonical_json
from common.errors import LedgerError
from common.secure_sum.ledger_mark import LedgerMark
from common.storage.atomic_file import write_text


class Witnesses:
    """The marks a hospital remembers, on disk.

    Args:
        path: The file; none is there before the first secure sum.

    Raises:
        LedgerError: The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            texts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            marks = [LedgerMark.model_validate(text) for text in texts]
        except (ValueError, ValidationError):
            raise LedgerError(
                "what this hospital remembers of other ledgers cannot be read",
                where=str(path),
                cure="remove the file: the others' marks are learnt again at the next round",
            ) from None
        self._newest = {mark.site_id: mark for mark in marks}

    def of(self, site_id: str) -> LedgerMark | None:
        """Return the newest mark of a hospital, or None."""
        return self._newest.get(site_id)

    def of_others(self, site_id: str) -> tuple[LedgerMark, ...]:
        """Return the newest marks of all hospitals but one, in the order of their names."""
        return tuple(mark for name, mark in sorted(self._newest.items()) if name != site_id)

    def remember(self, marks: Iterable[LedgerMark]) -> None:
        """Keep those marks that are newer than what is remembered; on disk at return."""
        newest = dict(self._newest)
        for mark in marks:
            earlier = newest.get(mark.site_id)
            if earlier is None or mark.position > earlier.position:
                newest[mark.site_id] = mark
        if newest != self._newest:
            body = [mark.model_dump(mode="json") for _, mark in sorted(newest.items())]
            write_text(self._path, canonical_json(body))
            self._newest = newest
