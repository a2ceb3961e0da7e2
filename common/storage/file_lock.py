"""Locks that say "this is at work": held by one process, and seen by others without touching them.

A reader that took the lock for an instant could make a starting process believe that another one
runs. So the kernel's own list is read (`/proc/locks`). Where that list is not there or not whole
(a container does not see its neighbours' locks) the lock is tried after all; whoever wants to hold
it therefore tries for a while.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCKS = Path("/proc/locks")
PATIENCE_S = 1.0
"""So long a lock is tried, while readers may have it for an instant."""

TRY_S = 0.005
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""The kernel's fixed number of the namespace that sees every process (PROC_PID_INIT_INO)."""


@contextmanager
def held_alone(lock: Path, busy: Exception) -> Iterator[None]:
    """Hold a lock inside the block; it ends with the process, whatever ends that.

    Args:
        lock: The file; made with its folder if need be, and never removed.
        busy: Raised if another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        deadline = time.monotonic() + PATIENCE_S
        while not _take(stream.fileno(), fcntl.LOCK_EX):
            if _listed(lock, LOCKS) or time.monotonic() > deadline:
                raise busy
            time.sleep(TRY_S)
        yield


def is_held(lock: Path, locks: Path = LOCKS) -> bool:
    """Return whether a process holds a lock.

    Args:
        lock: The file; nobody holds one that is missing.
        locks: The kernel's list.

    Raises:
        OSError: The file may not be read.
    """
    if not lock.exists():
        return False
    listed = _listed(lock, locks)
    if listed is not None:
        return listed
    with lock.open("r") as stream:
        return not _take(stream.fileno(), fcntl.LOCK_SH)


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _listed(lock: Path, locks: Path) -> bool | None:
    """Return what the list says; None if it cannot tell.

    An entry of the same inode may be of another disk. Its device settles that, except on file
    systems that show programs another device than the kernel's (Btrfs, overlays).
    """
    try:
        status = lock.stat()
        entries = [line.split() for line in locks.read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    same_inode = [
        entry[5]
        for entry in entries
        if "FLOCK" in entry
        and "WRITE" in entry
        and len(entry) > 5
        and entry[5].rpartition(":")[2] == str(status.st_ino)
    ]
    if f"{device}:{status.st_ino}" in same_inode:
        return True
    return None if same_inode or not _sees_all_processes() else False


def _sees_all_processes() -> bool:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False
