"""Readers of a lock never keep anybody from taking it."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from common.errors import ConfigError
from common.process.supervisor import Supervisor, read_supervised
from common.storage import file_lock
from common.storage.file_lock import LOCKS, held_alone, is_held

BUSY = ConfigError("it is running already")
HOLD = """
import sys
from pathlib import Path
from common.storage.file_lock import held_alone
with held_alone(Path(sys.argv[1]), ValueError()):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["list of the kernel", "whole list", "no list"])
def system(request, monkeypatch, tmp_path):
    """As here; as on a machine that sees all processes; and one without /proc/locks."""
    if request.param == "whole list":
        monkeypatch.setattr(file_lock, "_sees_all_processes", lambda: True)
    return tmp_path / "none" if request.param == "no list" else LOCKS


def test_a_lock_of_another_process_is_seen_and_ends_with_it(tmp_path, system):
    lock = tmp_path / "lock"
    assert not is_held(lock, system)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        assert is_held(lock, system)
        with pytest.raises(ConfigError, match="already"), held_alone(lock, BUSY):
            pass
    finally:
        holder.kill()
        holder.communicate()
    assert not is_held(lock, system)
    with held_alone(lock, BUSY):
        assert is_held(lock, system)


def test_a_thousand_readers_never_make_a_starter_fail(tmp_path, system):
    lock, stop, reads = tmp_path / "lock", threading.Event(), []

    def read():
        while not stop.is_set():
            is_held(lock, system)
            reads.append(1)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        starts = 0
        while starts < 50 or len(reads) < 1000:
            with held_alone(lock, BUSY):
                starts += 1
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert len(reads) >= 1000


def test_a_lock_of_the_same_inode_on_another_disk_is_not_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr(file_lock, "_sees_all_processes", lambda: True)
    lock, locks = tmp_path / "lock", tmp_path / "locks"
    lock.touch()
    inode = lock.stat().st_ino
    line = "1: FLOCK  ADVISORY  WRITE 7 {}:{} 0 EOF\n"
    locks.write_text(line.format("fe:7f", inode))
    assert not is_held(lock, locks)
    device = lock.stat().st_dev
    locks.write_text(line.format(f"{os.major(device):02x}:{os.minor(device):02x}", inode))
    assert is_held(lock, locks)
    locks.write_text(line.format("fe:7f", inode).replace("WRITE", "READ"))
    assert not is_held(lock, locks)


def test_a_supervisor_starts_while_its_status_is_being_read(tmp_path):
    """A reader that holds the lock for a moment, as in a container, delays a start at most."""
    status, stop = tmp_path / "status.json", threading.Event()
    reader = (tmp_path / "status.json.lock").open("w")
    fcntl.flock(reader, fcntl.LOCK_SH)
    threading.Timer(0.3, reader.close).start()
    started = []
    Supervisor([], status).run(stop, ready=lambda: (started.append(1), stop.set()))
    assert started
    assert read_supervised(status) is None
