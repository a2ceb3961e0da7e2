"""Whole or not at all."""

import os
import time
from pathlib import Path

import pytest

from common.storage.atomic_file import STALE_S, remove, whole_or_nothing, write_bytes, write_text


def write_half(path: Path) -> None:
    with whole_or_nothing(path) as temporary:
        temporary.write_text("half")
        temporary.write_text(None)  # type: ignore[arg-type]


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(TypeError):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writers_are_swept(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".a.txt.1.tmp", tmp_path / ".a.txt.2.tmp"
    for leftover in (old, fresh):
        leftover.write_text("x")
    past = time.time() - STALE_S - 5
    os.utime(old, (past, past))
    write_bytes(tmp_path / "a.txt", b"new")
    assert not old.exists()
    assert fresh.exists()


def test_nothing_of_a_removed_secret_stays_and_it_was_readable_by_its_owner_alone(
    tmp_path: Path,
) -> None:
    path, leftover = tmp_path / "a.key", tmp_path / ".a.key.1.tmp"
    write_bytes(path, b"sec", b"ret", mode=0o600)
    assert path.read_bytes() == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600
    leftover.write_bytes(b"sec")
    remove(path)
    remove(path)
    assert list(tmp_path.iterdir()) == []
