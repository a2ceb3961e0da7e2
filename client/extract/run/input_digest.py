"""Compute the digest of an item's raw input, which decides whether to extract it again.

Files up to 64 MiB are hashed whole. Larger ones (slides of gigabytes, often on a network drive)
are hashed by their size and 64 samples of 1 MiB, spread evenly and with both ends. Scanners and
converters rewrite compressed slides from end to end, so any re-scan, re-export or truncation
changes size or samples; what could slip through is a change of single bytes between samples,
which no program makes. Names, folders and modification times are left out, so that a cohort can
be moved or copied without losing its features.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from common.contract import canonical_json, sha256_hex

WHOLE_BYTES = 64 << 20
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 20


class InputDigester:
    """Digests of raw input; a file that many patients share (an RNA table) is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def digest(self, paths: Sequence[Path], values: Mapping[str, JsonValue]) -> str:
        """Return the digest of files and values, 64 hex characters.

        Args:
            paths: Raw files or DICOM folders, in the extractor's order.
            values: What is read from the manifest row itself.

        Raises:
            OSError: A file cannot be read.
        """
        parts = {"paths": [self._of(path) for path in paths], "values": dict(values)}
        return sha256_hex(canonical_json(parts))

    def _of(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = path_digest(path)
        return self._known[path]


def path_digest(path: Path) -> str:
    """Return the digest of a file, or of all files below a folder with their relative names.

    Raises:
        OSError: A file cannot be read.
    """
    if not path.is_dir():
        return file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return sha256_hex(
        canonical_json([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])
    )


def file_digest(path: Path) -> str:
    """Return the digest of one file; see the module for what of it is read."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= WHOLE_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256(f"sampled:{size}:".encode())
        for index in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * index // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()
