"""Recognise errors of a full disk among all other system errors.

Writers name the file with `names_full_disk`: the kernel does not when a write fails. Whoever shows
errors asks `disk_full_of`.
"""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import ErrorCode, TumorboardError

AGAIN = "; a running study asks again by itself, a command is to be run again"
FULL = {
    errno.ENOSPC: ("the disk is full", f"free space there, or use a larger disk{AGAIN}"),
    errno.EDQUOT: (
        "the disk quota of this account is used up",
        f"remove files of this account, or have its quota raised{AGAIN}",
    ),
    errno.EFBIG: (
        "a file has reached the size that is allowed to this process",
        f"raise the limit (`ulimit -f`, or LimitFSIZE= of the service) and start it again{AGAIN}",
    ),
}
"""Error number -> what happened, fix."""

_SQLITE_FULL = 13
_HDF5_ERRNO = re.compile(r"errno = (\d+)")
"""HDF5 reports the system's error only in its text."""


class DiskFullError(TumorboardError):
    """Something could not be written for lack of space; nothing is half written."""

    default_code = ErrorCode.DISK_FULL


@contextmanager
def names_full_disk(path: Path) -> Iterator[None]:
    """Have an error of a full disk inside the block name the file that was written."""
    try:
        yield
    except OSError as error:
        if error.filename is None and _number(error) is not None:
            error.filename = str(path)
        raise


def disk_full_of(error: BaseException) -> DiskFullError | None:
    """Return the full disk behind an error, or None if it has another reason.

    Args:
        error: Any error; what it was raised from, or while handling, is looked at too.

    Example:
        >>> print(disk_full_of(OSError(errno.ENOSPC, "No space left on device", "a.txt")).what)
        the disk is full
    """
    link: BaseException | None = error
    visited: set[int] = set()
    while link is not None and id(link) not in visited:
        visited.add(id(link))
        if isinstance(link, DiskFullError):
            return link
        number = _number(link)
        if number is not None:
            what, cure = FULL[number]
            where = str(getattr(link, "filename", None) or "")
            return DiskFullError(what, where=where, why=_room(where), cure=cure)
        link = link.__cause__ or link.__context__
    return None


def free_bytes(path: Path) -> int | None:
    """Return the room on the disk that holds a path; None if it is unknown."""
    for place in (path, *path.parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def room_in_words(free: int) -> str:
    """Return free bytes as people read them.

    Example:
        >>> room_in_words(3 << 29), room_in_words(5000)
        ('1.5 GiB free', '0.0 MiB free')
    """
    if free >= 1 << 30:
        return f"{free / (1 << 30):.1f} GiB free"
    return f"{free / (1 << 20):.1f} MiB free"


def _number(error: BaseException) -> int | None:
    """Return the error number of a full disk, reported by the system, SQLite or HDF5; else None."""
    if getattr(error, "sqlite_errorcode", None) == _SQLITE_FULL:
        return errno.ENOSPC
    if not isinstance(error, OSError):
        return None
    if error.errno is not None:
        return error.errno if error.errno in FULL else None
    match = _HDF5_ERRNO.search(str(error))
    return int(match[1]) if match and int(match[1]) in FULL else None


def _room(where: str) -> str:
    free = free_bytes(Path(where)) if where else None
    return "" if free is None else f"{room_in_words(free)} on its disk"
