"""When raw input counts as changed."""

import os
from pathlib import Path

import pytest

from client.extract.run import input_digest
from client.extract.run.input_digest import WHOLE_BYTES, InputDigester, file_digest, path_digest


def test_content_counts_not_name_or_time(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"slide")
    b.write_bytes(b"slide")
    os.utime(b, (0, 0))
    assert file_digest(a) == file_digest(b)
    b.write_bytes(b"slidf")
    assert file_digest(a) != file_digest(b)


@pytest.mark.parametrize("where", [0, 1_000_000, -1, -1_000_000, "middle"])
def test_large_files_are_sampled_at_both_ends_and_between(
    tmp_path: Path, where: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = WHOLE_BYTES + 12_345_678
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(size)
    reads = []
    monkeypatch.setattr(input_digest.hashlib, "file_digest", lambda *_: reads.append(1))
    before = file_digest(path)
    assert reads == []
    offset = {"middle": (size - (1 << 20)) * 32 // 63 + 5}.get(str(where), where)
    with path.open("r+b") as stream:
        stream.seek(int(offset) % size)
        stream.write(b"x")
    assert file_digest(path) != before


def test_large_file_of_another_size_differs(tmp_path: Path) -> None:
    digests = set()
    for extra in (1, 2):
        path = tmp_path / str(extra)
        with path.open("wb") as stream:
            stream.truncate(WHOLE_BYTES + extra)
        digests.add(file_digest(path))
    assert len(digests) == 2


def test_folder_counts_every_file_and_its_name(tmp_path: Path) -> None:
    series = tmp_path / "series"
    (series / "sub").mkdir(parents=True)
    (series / "1.dcm").write_bytes(b"1")
    (series / "sub" / "2.dcm").write_bytes(b"2")
    before = path_digest(series)
    (series / "sub" / "2.dcm").rename(series / "2.dcm")
    moved = path_digest(series)
    (series / "3.dcm").write_bytes(b"3")
    assert len({before, moved, path_digest(series)}) == 3


def test_values_and_order_count_and_shared_files_are_read_once(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    digester = InputDigester()
    before = digester.digest([a, b], {"age": 61})
    assert digester.digest([b, a], {"age": 61}) != before
    assert digester.digest([a, b], {"age": 62}) != before
    a.unlink()
    assert digester.digest([a, b], {"age": 61}) == before
    with pytest.raises(OSError, match="No such file"):
        InputDigester().digest([a], {})
