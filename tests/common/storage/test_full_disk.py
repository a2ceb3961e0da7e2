"""A full disk is told apart, on files that really cannot grow."""

import errno
import resource
import sqlite3

import h5py
import numpy as np
import pytest

from common.errors import ConfigError, ErrorCode
from common.storage import durable
from common.storage.atomic_file import write_bytes
from common.storage.full_disk import DiskFullError, disk_full_of, names_full_disk


@pytest.fixture
def short_files():
    """No file of this process may grow beyond 8 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def caught(write) -> BaseException:
    with pytest.raises(Exception) as told:  # noqa: PT011 - libraries raise what they like
        write()
    return told.value


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_each_kind_has_its_own_words_and_cure(number):
    told = disk_full_of(OSError(number, "no", "/tmp"))
    assert told.code == ErrorCode.DISK_FULL
    assert told.where == "/tmp"
    assert told.what
    assert told.cure
    assert "free on its disk" in told.why


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), ValueError("x"), MemoryError()])
def test_what_is_no_full_disk(error):
    assert disk_full_of(error) is None


def test_the_file_is_named_and_the_old_one_stays(tmp_path, short_files):
    file = tmp_path / "a.bin"
    write_bytes(file, b"old")
    told = disk_full_of(caught(lambda: write_bytes(file, bytes(9000))))
    assert (told.code, told.where) == (ErrorCode.DISK_FULL, str(file))
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_ledger_and_sealed_replies_name_their_file(tmp_path, short_files):
    for write in (
        lambda path: durable.append(path, bytes(9000), at=0),
        lambda path: write_bytes(path, bytes(9000), mode=0o600),
    ):
        assert disk_full_of(caught(lambda w=write: w(tmp_path / "l"))).where == f"{tmp_path}/l"


def test_a_full_disk_behind_another_error_is_found():
    def write():
        try:
            raise OSError(errno.ENOSPC, "no", "/tmp/x")
        except OSError:
            raise ConfigError("the split key cannot be used") from None

    assert disk_full_of(caught(write)).where == "/tmp/x"


def test_hdf5(tmp_path, short_files):
    path = tmp_path / "bag.h5"

    def write():
        with names_full_disk(path), h5py.File(path, "w") as handle:
            handle["features"] = np.ones(9000)
            handle.flush()

    assert disk_full_of(caught(write)).code == ErrorCode.DISK_FULL


def test_sqlite():
    database = sqlite3.connect(":memory:")
    database.execute("PRAGMA max_page_count = 3")
    database.execute("CREATE TABLE t (x)")
    told = caught(lambda: database.execute("INSERT INTO t VALUES (zeroblob(100000))"))
    assert isinstance(disk_full_of(told), DiskFullError)
