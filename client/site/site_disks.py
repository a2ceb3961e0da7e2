"""Check that the agent can write to its disks, for status, doctor and page."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from client.site.disk_watch import written_places
from common.commands.doctor import Finding
from common.process.grpc_health import health_of
from common.storage.full_disk import disk_full_of, free_bytes, names_full_disk, room_in_words
from common.study.site_policy import SitePolicy

CHECK = "full disk"
LEAST_BYTES = 1 << 20
"""A disk with less room than this counts as full."""

TRIED_BYTES = 1 << 16
_CURE = (
    "free space on the disk that holds it, or raise the quota or file size allowed to the agent's "
    "account; the agent's log names the file. Nothing is lost: the request is asked again"
)


def full_disks(policy: SitePolicy, socket: Path) -> Iterator[Finding]:
    """Yield every place without room: by its disk, or by the agent's last attempt."""
    places = written_places(policy)
    listens = socket.is_socket()
    full = {
        folder: f"the agent could not write below {folder} when it was last asked"
        for service, folder in places.items()
        if listens and health_of(f"unix:{socket}", service) is False
    }
    reported = set()
    for folder in sorted(set(places.values()), key=lambda folder: (folder not in full, folder)):
        free, disk = free_bytes(folder), _disk(folder)
        if free is None or (folder not in full and (free >= LEAST_BYTES or disk in reported)):
            continue
        reported.add(disk)
        message = full.get(folder, f"no room below {folder}")
        yield Finding(CHECK, "problem", f"{message}: {room_in_words(free)}", _CURE)


def tried_disks(policy: SitePolicy) -> Iterator[Finding]:
    """Yield every place where this account cannot write a small file for lack of space."""
    for folder in dict.fromkeys(written_places(policy).values()):
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            continue  # other checks report it
        file = folder / f".room.{secrets.token_hex(4)}.tmp"
        try:
            with names_full_disk(file), file.open("wb") as stream:
                stream.write(bytes(TRIED_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            full = disk_full_of(error)
            if full is not None:
                message = f"{full.what} ({folder}): {full.why}"
                yield Finding(CHECK, "problem", message, full.cure)
        finally:
            file.unlink(missing_ok=True)


def _disk(folder: Path) -> int:
    return next(place for place in (folder, *folder.parents) if place.exists()).stat().st_dev
