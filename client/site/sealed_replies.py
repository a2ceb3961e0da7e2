"""Store replies before they leave, so that they can be sent again at no cost.

The first payload stored under a key stays: a second computation of the same release, with other
noise, can never be sent.
"""

import struct
from pathlib import Path

from common.contract import canonical_json, sha256_hex
from common.errors import LedgerError
from common.storage import durable
from common.storage.atomic_file import write_bytes

ReplyKey = tuple[str, str, int, str]
"""(method, run, round, digest of the model or request)."""

_METHODS = ("train", "evaluate")
_MAGIC = b"TBSEAL1\n"
_LENGTH = struct.Struct(">Q")


class SealedReplies:
    """A folder of stored replies, one file a release.

    Args:
        folder: Created, readable by its owner only, if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        durable.private_folder(folder)

    def store(self, key: ReplyKey, header: str, payload: bytes) -> tuple[str, bytes]:
        """Store a reply and return the one that is stored: an earlier one wins.

        When this returns the reply is on disk, whole.

        Raises:
            LedgerError: An earlier reply is stored but damaged.
        """
        with durable.exclusive_lock(self._folder / ".lock"):
            earlier = self.load(key)
            if earlier is not None:
                return earlier
            path = self._path(key)
            durable.private_folder(path.parent)
            body = b"".join((_LENGTH.pack(len(encoded := header.encode())), encoded, payload))
            write_bytes(path, _MAGIC, bytes.fromhex(sha256_hex(body)), body, mode=0o600)
        return header, payload

    def load(self, key: ReplyKey) -> tuple[str, bytes] | None:
        """Return (header, payload) as stored, or None.

        Raises:
            LedgerError: The stored reply is damaged; it cannot be computed again.
        """
        path = self._path(key)
        if not path.exists():
            return None
        raw = path.read_bytes()
        start = len(_MAGIC) + 32
        body = raw[start:]
        if raw[: len(_MAGIC)] != _MAGIC or raw[len(_MAGIC) : start].hex() != sha256_hex(body):
            raise LedgerError(
                "a stored reply is damaged",
                where=str(path),
                why="it was paid for once and must not be computed again with fresh noise",
                cure="restore it from a backup, or let the round pass without this site",
            )
        end = _LENGTH.size + _LENGTH.unpack_from(body)[0]
        return body[_LENGTH.size : end].decode(), body[end:]

    def holds(self, run_id: str, round_number: int, digest: str) -> bool:
        """Return whether a reply of any method is stored, damaged or not."""
        keys = [(method, run_id, round_number, digest) for method in _METHODS]
        return any(self._path(key).exists() for key in keys)

    def _run_folder(self, run_id: str) -> Path:
        return self._folder / sha256_hex(run_id)[:32]

    def _path(self, key: ReplyKey) -> Path:
        return self._run_folder(key[1]) / f"{sha256_hex(canonical_json(list(key)))}.reply"


def payload_digest(header: str, payload: bytes) -> str:
    """Return the SHA-256 of a reply, for the ledger's commit."""
    return sha256_hex(f"{sha256_hex(header)}|{sha256_hex(payload)}")
