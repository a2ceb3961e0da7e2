import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.site.sealed_replies import SealedReplies, payload_digest
from common.errors import LedgerError

KEY = ("train", "run-1", 3, "ab" * 32)


def test_a_stored_reply_comes_back_byte_by_byte(tmp_path: Path) -> None:
    sealed = SealedReplies(tmp_path / "replies")
    assert sealed.load(KEY) is None
    assert sealed.store(KEY, '{"ä":1}', b"\0\xffpayload") == ('{"ä":1}', b"\0\xffpayload")
    assert SealedReplies(tmp_path / "replies").load(KEY) == ('{"ä":1}', b"\0\xffpayload")
    assert sealed.holds("run-1", 3, "ab" * 32)
    assert not sealed.holds("run-1", 4, "ab" * 32)


def test_the_first_reply_stays(tmp_path: Path) -> None:
    sealed = SealedReplies(tmp_path)
    sealed.store(KEY, "first", b"noise one")
    assert sealed.store(KEY, "second", b"noise two") == ("first", b"noise one")


def test_concurrent_computations_send_one_reply(tmp_path: Path) -> None:
    sealed, got = SealedReplies(tmp_path), []

    def work(number: int) -> None:
        got.append(sealed.store(KEY, "h", bytes([number]) * 1000))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1


@given(
    change=st.sampled_from([(0, "evaluate"), (1, "run-2"), (2, 4), (3, "cd" * 32)]),
)
@settings(max_examples=4, deadline=None)
def test_every_part_of_the_key_counts(tmp_path_factory, change) -> None:
    sealed = SealedReplies(tmp_path_factory.mktemp("sealed"))
    sealed.store(KEY, "h", b"p")
    other = list(KEY)
    other[change[0]] = change[1]
    assert sealed.load(tuple(other)) is None


def test_any_damage_is_noticed_and_never_overwritten(tmp_path: Path) -> None:
    sealed = SealedReplies(tmp_path)
    sealed.store(KEY, "header", b"payload")
    path = next(tmp_path.glob("*/*.reply"))
    whole = path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(LedgerError, match="damaged"):
            sealed.load(KEY)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(LedgerError, match="damaged"):
            sealed.store(KEY, "header", b"fresh noise")


def test_digest_separates_header_from_payload() -> None:
    assert payload_digest("ab", b"c") != payload_digest("a", b"bc")
