"""Readers of a lock never keep anybody from taking it."""

import subprocess
import sys
import threading

import pytest

from common.errors import ConfigError
from common.process.supervisor import Supervisor, read_supervised
from common.storage.file_lock import held_alone, is_held

BUSY = ConfigError("it is running already")
HOLD = """
import sys
from pathlib import Path
from common.storage.file_lock import held_alone
with held_alone(Path(sys.argv[1]), ValueError()):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_of_another_process_is_seen_and_ends_with_it(tmp_path):
    lock = tmp_path / "lock"
    assert not is_held(lock)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        assert is_held(lock)
        with pytest.raises(ConfigError, match="already"), held_alone(lock, BUSY):
            pass
    finally:
        holder.kill()
        holder.communicate()
    assert not is_held(lock)
    with held_alone(lock, BUSY):
        assert is_held(lock)


def test_a_thousand_readers_never_make_a_starter_fail(tmp_path):
    lock, stop, reads = tmp_path / "lock", threading.Event(), []

    def read():
        while not stop.is_set():
            is_held(lock)
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


def test_a_supervisor_starts_while_its_status_is_being_read(tmp_path):
    status, stop = tmp_path / "status.json", threading.Event()
    reader = threading.Thread(target=lambda: [read_supervised(status) for _ in range(2000)])
    reader.start()
    started = []
    Supervisor([], status).run(stop, ready=lambda: (started.append(1), stop.set()))
    reader.join()
    assert started
    assert read_supervised(status) is None
