"""Store what a hospital keeps between rounds: its own parameters, control variates.

Each entry is on disk with the round it belongs to and what it was before that round, so that a
round that is asked again starts from the same state and gives the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from common.errors import LedgerError
from common.storage.atomic_file import write_bytes
from common.wire import Arrays, part_of, prefixed

ROUND = "round"


@dataclass(frozen=True)
class SiteMemory:
    """Named arrays of one run, by round.

    Attributes:
        folder: Where they lie; one file a name.
    """

    folder: Path

    def before(self, name: str, round: int, *, counted: int | None = None) -> Arrays:
        """Return what was kept when a round begins; empty before the first.

        Args:
            name: What to look for.
            round: The round that begins; a round that was kept already is undone.
            counted: Last round in which this site's update counted; a later one that was kept
                is undone, for the server never used it. None: it does not matter.

        Raises:
            LedgerError: The file is damaged.
        """
        arrays = self._load(name)
        if arrays is None:
            return {}
        at = int(arrays[ROUND][0])
        undone = at >= round or (counted is not None and counted < at)
        return part_of(arrays, "before/" if undone else "after/")

    def latest(self, name: str) -> Arrays:
        """Return what was kept last; empty if nothing was.

        Raises:
            LedgerError: The file is damaged.
        """
        arrays = self._load(name)
        return {} if arrays is None else part_of(arrays, "after/")

    def keep(self, name: str, round: int, before: Arrays, after: Arrays) -> None:
        """Store what a round began with and ended with, whole or not at all."""
        arrays = prefixed("before/", before) | prefixed("after/", after)
        arrays[ROUND] = np.array([round], dtype=np.int64)
        contiguous = {n: np.ascontiguousarray(a) for n, a in sorted(arrays.items())}
        write_bytes(self._path(name), save_tensors(contiguous))

    def _load(self, name: str) -> Arrays | None:
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            arrays: Arrays = load_tensors(path.read_bytes())
        except (OSError, SafetensorError):
            raise LedgerError(
                "what this site keeps between rounds cannot be read",
                where=str(path),
                why="it was changed from outside",
                cure="restore the state folder from backup, or remove the file: the site then "
                "starts again from the global model",
            ) from None
        return arrays

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
