"""Lock a file against other writers, and append to it so that a power cut tears the end at most."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.storage.atomic_file import sync, write_all
from common.storage.full_disk import names_full_disk


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock against other processes and threads; waits until it is free.

    Args:
        path: Lock file; created if need be and never removed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> None:
    """Create a folder that only its owner can enter; an existing one is left as it is."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sync(folder.parent)


def append(path: Path, data: bytes, *, at: int) -> None:
    """Write bytes at offset `at`, cut the file behind them, and sync it.

    What stood behind `at` (a torn line) is gone only when the new bytes are in place.
    """
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with names_full_disk(path):
            os.lseek(descriptor, at, os.SEEK_SET)
            write_all(descriptor, data)
            if os.fstat(descriptor).st_size > at + len(data):
                os.ftruncate(descriptor, at + len(data))
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync(path.parent)
