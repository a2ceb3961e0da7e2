"""Lock a file while a process works, so that others can see whether it is held without taking it.

These are Linux's open-file-description locks: the kernel says whether one is held, so that a
reader is never in the way of a process that is just starting.
"""

import fcntl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FLOCK = struct.Struct("hhqqi0q")
"""The kernel's `struct flock`: type, whence, start, length (0: whole file), process."""


@contextmanager
def held_alone(lock: Path, busy: Exception) -> Iterator[None]:
    """Hold a lock inside the block; it ends with the process, whatever ends that.

    Args:
        lock: The file; created with its folder if need be, and never removed.
        busy: Raised if another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        try:
            fcntl.fcntl(stream, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except BlockingIOError:
            raise busy from None
        yield


def is_held(lock: Path) -> bool:
    """Return whether a process holds a lock.

    Args:
        lock: The file; nobody holds one that is missing.

    Raises:
        OSError: The file may not be read.
    """
    if not lock.exists():
        return False
    with lock.open("r") as stream:
        answer = fcntl.fcntl(stream, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_RDLCK))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _whole_file(kind: int) -> bytes:
    return _FLOCK.pack(kind, 0, 0, 0, 0)
