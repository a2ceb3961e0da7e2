"""Write files whole or not at all.

A reader, or the same command after a crash, sees the old file or the new one, never a part.
"""

import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.storage.full_disk import names_full_disk

STALE_S = 3600.0
"""Age after which the temporary file of a killed writer is swept away."""


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and takes its name.

    An exception inside the block removes the temporary file and leaves `path` as it was.

    Args:
        path: Final name; its folder is created if need be.

    Raises:
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with names_full_disk(path):
            yield temporary
            sync(temporary)
            os.rename(temporary, path)  # noqa: PTH104 - crash tests stop the process at os calls
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, *parts: bytes, mode: int = 0o666) -> None:
    """Write bytes, whole or not at all.

    Args:
        path: The file.
        parts: What it holds, one after the other.
        mode: Permissions of the file, less the process's umask; 0o600 for its owner alone.
    """
    with whole_or_nothing(path) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)
        try:
            for part in parts:
                write_all(descriptor, part)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, if it is there, with whatever killed writers left of it."""
    path.unlink(missing_ok=True)
    _sweep(path, -math.inf)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to a descriptor, however few of them one call takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync(path: Path) -> None:
    """Force a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(path: Path, age_s: float = STALE_S) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        try:
            if time.time() - leftover.stat().st_mtime > age_s:
                leftover.unlink()
        except FileNotFoundError:  # another process swept it
            continue
