from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ErrorCode, ProtocolError, RunError
from common.privacy.integer_encoding import IntegerEncoding
from common.secure_sum import round_secrets, site_rounds
from common.secure_sum.messages import UnmaskReply, UnmaskRequest
from common.secure_sum.round_secrets import sum_name
from common.secure_sum.server_rounds import SecureSumServer
from common.secure_sum.site_rounds import SecureSumSite
from common.wire import Arrays


class Consortium:
    """N sites and a server that have agreed on keys."""

    def __init__(
        self, n: int, t: int, n_min: int, bits: int = 64, folder: Path | None = None
    ) -> None:
        self.ids = [f"site-{i:02d}" for i in range(n)]
        self.keys = {name: Ed25519PrivateKey.generate() for name in self.ids}
        self.roster = {n: k.public_key().public_bytes_raw().hex() for n, k in self.keys.items()}
        self.numbers, self.bits, self.folder = (t, n_min), bits, folder
        self.sites = {name: self.site(name) for name in self.ids}
        self.server = SecureSumServer(self.sites[self.ids[0]].context, self.roster)
        agreed = self.server.agree([s.advertise() for s in self.sites.values()])
        for member in self.sites.values():
            assert member.receive_keys(agreed.adverts) == agreed.digest

    def site(self, name: str, session: int = 1) -> SecureSumSite:
        return SecureSumSite(
            name,
            self.keys[name],
            self.roster,
            *self.numbers,
            run_id="run",
            study_digest="a" * 64,
            session=session,
            modulus_bits=self.bits,
            state_file=self.folder / f"{name}.json" if self.folder else None,
        )

    def vectors(self, d: int = 50, seed: int = 0) -> dict[str, np.ndarray]:
        dice = np.random.default_rng(seed)
        return {name: dice.integers(-(2**24), 2**24, d) for name in self.ids}

    def upload(self, number: int, vectors: dict[str, np.ndarray], lost: set[str]) -> None:
        self.uploads: dict[str, Arrays] = {}
        self.server.start(number, len(next(iter(vectors.values()))), "question")
        for name in self.ids:
            if name not in lost:
                self.uploads[name] = self.sites[name].masked(number, vectors[name], "question")
                self.server.collect(name, self.uploads[name])

    def answers(self, silent: set[str]) -> list[UnmaskReply]:
        asked = self.server.unmask_requests()
        return [
            self.sites[name].unmask(UnmaskRequest.decode(*request.encode()))
            for name, request in asked.items()
            if name not in silent
        ]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_sum_is_exact_over_whoever_uploaded(data: st.DataObject) -> None:
    n = data.draw(st.integers(3, 9))
    t = data.draw(st.integers(1, max(1, (n - 1) // 3)))
    threshold = (n + t) // 2 + 1
    n_min = data.draw(st.integers(threshold, n))
    group = Consortium(n, t, n_min, bits=data.draw(st.sampled_from([32, 64])))
    order = data.draw(st.permutations(group.ids))
    lost = set(order[: data.draw(st.integers(0, n - n_min))])
    staying = [name for name in order if name not in lost]
    silent = set(staying[: data.draw(st.integers(0, len(staying) - threshold))])
    for number in (1, 2):
        vectors = group.vectors(seed=number)
        group.upload(number, vectors, lost)
        result = group.server.open(group.answers(silent))
        assert result.survivors == sorted(staying)
        assert set(result.lost) == lost
        assert set(result.unanswered) == silent
        assert np.array_equal(result.total, sum(vectors[name] for name in staying))


def test_integer_sum_is_the_float_sum_to_a_millionth() -> None:
    group = Consortium(6, 1, 5)
    coder = IntegerEncoding(clip=0.3, sigma=13.9, dimension=4000, shares=4, n_sites=6)
    dice = np.random.default_rng(5)
    floats = {name: dice.normal(0, 3, 4000) for name in group.ids}
    group.upload(1, {name: coder.encode(v) for name, v in floats.items()}, set())
    total = coder.decode(group.server.open(group.answers(set())).total)
    exact = sum(floats.values())
    assert np.linalg.norm(total - exact) / np.linalg.norm(exact) < 1e-6


def test_too_few_uploads_or_answers_void_the_round_and_the_next_one_works() -> None:
    group = Consortium(6, 1, 5)
    vectors = group.vectors()
    group.upload(1, vectors, {"site-00", "site-01"})
    with pytest.raises(RunError, match="void") as caught:
        group.server.unmask_requests()
    assert caught.value.code == ErrorCode.QUORUM
    group.upload(2, vectors, set())
    with pytest.raises(RunError, match="void"):
        group.server.open(group.answers({"site-00", "site-01", "site-02"}))
    group.upload(3, vectors, {"site-03"})
    result = group.server.open(group.answers({"site-00"}))
    assert np.array_equal(result.total, sum(v for n, v in vectors.items() if n != "site-03"))


def test_answers_may_come_late() -> None:
    group = Consortium(6, 1, 5)
    group.upload(1, group.vectors(), set())
    replies = group.answers(set())
    with pytest.raises(RunError):
        group.server.open(replies[:3])
    assert len(group.server.open(replies[:4]).survivors) == 6


def test_one_wrong_answer_is_survived_and_two_are_noticed() -> None:
    group = Consortium(7, 1, 5)
    group.upload(1, group.vectors(), {"site-06"})
    replies = group.answers(set())

    def spoiled(reply: UnmaskReply) -> UnmaskReply:
        arrays = dict(reply.arrays)
        arrays["tokens"] = arrays["tokens"] ^ 1
        return reply.model_copy(update={"arrays": arrays})

    with pytest.raises(ProtocolError, match="committed"):
        group.server.open([spoiled(replies[0]), spoiled(replies[1]), *replies[2:]])
    result = group.server.open([spoiled(replies[0]), *replies[1:]])
    assert np.array_equal(result.total, sum(group.vectors()[n] for n in result.survivors))


def asked_about(
    group: Consortium, name: str, survivors: list[str], **changes: object
) -> UnmaskRequest:
    """A well-formed request about any list, as a server that has every upload can make it."""
    column = group.ids.index(name)
    rows = [group.uploads[s]["sealed_shares"][column] for s in survivors if s in group.uploads]
    request = UnmaskRequest(run_id="run", session=1, round=1, survivors=survivors)
    return request.model_copy(
        update={"arrays": {"sealed_shares": np.stack(rows)}, "survivors": survivors, **changes}
    )


def test_a_site_refuses_what_could_open_more_than_the_sum() -> None:
    group = Consortium(6, 1, 5)
    group.upload(1, group.vectors(), set())
    one, ids = group.sites["site-00"], group.ids
    for reason, bad in (
        ("does not name this site", asked_about(group, "site-00", ids[1:])),
        ("fewer than n_min", asked_about(group, "site-00", ids[:4])),
        ("stranger", asked_about(group, "site-00", [*ids, "stranger"])),
        ("twice", asked_about(group, "site-00", [*ids, ids[-1]])),
        ("twice", asked_about(group, "site-00", list(reversed(ids)))),
        ("not the one", asked_about(group, "site-00", ids, round=2)),
        ("another run", asked_about(group, "site-00", ids, session=2)),
        ("another run", asked_about(group, "site-00", ids, run_id="other")),
        ("shares are missing", asked_about(group, "site-00", ids, arrays={})),
    ):
        with pytest.raises(ProtocolError, match=reason) as caught:
            one.unmask(bad)
        assert caught.value.code == ErrorCode.SECURE_SUM
    one.unmask(asked_about(group, "site-00", ids))
    one.unmask(asked_about(group, "site-00", ids))  # the same list may be asked about again


def test_a_row_reflected_to_its_sender_is_refused() -> None:
    group = Consortium(4, 1, 3)
    group.upload(1, group.vectors(), set())
    asked = asked_about(group, "site-01", group.ids)
    rows = asked.arrays["sealed_shares"].copy()
    rows[2] = group.uploads["site-01"]["sealed_shares"][2]  # what it sealed for site-02
    reply = group.sites["site-01"].unmask(
        asked.model_copy(update={"arrays": {"sealed_shares": rows}})
    )
    assert (reply.unreadable, reply.arrays) == (["site-02"], {})


def test_a_site_that_forwards_wrong_shares_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Consortium(7, 1, 5)
    group.upload(1, group.vectors(), {"site-06"})
    asked = group.server.unmask_requests()

    def lying(keys, number, sender, row):
        held = round_secrets.open_shares(keys, number, sender, row)
        return {name: bytes([share[0] ^ 1]) + share[1:] for name, share in held.items()}

    honest = {name: group.sites[name].unmask(q) for name, q in asked.items()}
    monkeypatch.setattr(site_rounds, "open_shares", lying)
    false = {name: group.sites[name].unmask(asked[name]) for name in ("site-00", "site-01")}
    with pytest.raises(ProtocolError, match="committed"):
        group.server.open(list((honest | false).values()))
    del false["site-01"]
    result = group.server.open(list((honest | false).values()))
    assert np.array_equal(result.total, sum(group.vectors()[n] for n in result.survivors))


def test_a_second_list_of_survivors_is_refused() -> None:
    group = Consortium(6, 1, 4)
    group.upload(1, group.vectors(), set())
    asked = group.server.unmask_requests()["site-00"]
    group.sites["site-00"].unmask(asked)
    fewer = asked.model_copy(
        update={
            "survivors": asked.survivors[:5],
            "arrays": {"sealed_shares": asked.arrays["sealed_shares"][:5]},
        }
    )
    with pytest.raises(ProtocolError, match="another list"):
        group.sites["site-00"].unmask(fewer)


def test_a_round_is_masked_once_and_rounds_only_rise() -> None:
    group = Consortium(3, 1, 3)
    one, vector = group.sites["site-00"], np.arange(5)
    one.masked(4, vector, "question")
    for number in (4, 3):
        with pytest.raises(ProtocolError, match="already masked"):
            one.masked(number, vector, "question")
    one.masked(5, vector, "question")
    with pytest.raises(ProtocolError, match="no keys"):
        group.site("site-01").masked(1, vector, "question")


def test_changed_shares_are_noticed_by_the_site() -> None:
    group = Consortium(4, 1, 3)
    group.upload(1, group.vectors(), set())
    asked = group.server.unmask_requests()["site-01"]
    rows = asked.arrays["sealed_shares"].copy()
    rows[2, 40] ^= 1
    swapped = asked.arrays["sealed_shares"][::-1]
    for changed, senders in ((rows, ["site-02"]), (swapped, group.ids)):
        reply = group.sites["site-01"].unmask(
            asked.model_copy(update={"arrays": {"sealed_shares": changed}})
        )
        assert (reply.unreadable, reply.arrays) == (senders, {})


def test_server_refuses_uploads_that_are_not_as_declared() -> None:
    group = Consortium(4, 1, 3)
    group.server.start(1, 5, "question")
    upload = group.sites["site-00"].masked(1, np.arange(5), "question")
    for name in upload:
        with pytest.raises(ProtocolError, match=name):
            group.server.collect("site-00", {k: v for k, v in upload.items() if k != name})
    with pytest.raises(ProtocolError, match="masked"):
        group.server.collect("site-00", upload | {"masked": upload["masked"][:4]})
    with pytest.raises(ProtocolError, match="masked"):
        group.server.collect("site-00", upload | {"masked": upload["masked"].astype(float)})
    group.server.collect("site-00", upload)
    for name in ("site-00", "stranger"):
        with pytest.raises(ProtocolError, match="not expected"):
            group.server.collect(name, upload)


def test_a_restarted_site_finishes_the_round_and_remembers_what_it_answered(
    tmp_path: Path,
) -> None:
    group = Consortium(5, 1, 4, folder=tmp_path)
    vectors = group.vectors()
    group.upload(1, vectors, {"site-04"})
    group.sites = {name: group.site(name) for name in group.ids}  # all restart
    assert all(site.keys_agreed for site in group.sites.values())
    with pytest.raises(ProtocolError, match="already masked"):
        group.sites["site-00"].masked(1, vectors["site-00"], "question")
    asked = group.server.unmask_requests()
    replies = [group.sites[name].unmask(q) for name, q in asked.items()]
    total = group.server.open(replies).total
    assert np.array_equal(total, sum(v for n, v in vectors.items() if n != "site-04"))
    again = group.site("site-00")
    other = asked["site-00"].model_copy(
        update={
            "survivors": group.ids,
            "arrays": {"sealed_shares": np.zeros((5, 193), dtype=np.uint8)},
        }
    )
    with pytest.raises(ProtocolError, match="another list"):
        again.unmask(other)
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_new_keys_do_not_reopen_an_old_round(tmp_path: Path) -> None:
    group = Consortium(4, 1, 3, folder=tmp_path)
    vectors = group.vectors()
    group.upload(3, vectors, {"site-03"})
    renewed = {name: group.site(name, session=2) for name in group.ids}
    server = SecureSumServer(renewed["site-00"].context, group.roster)
    agreed = server.agree([s.advertise() for s in renewed.values()])
    for member in renewed.values():
        member.receive_keys(agreed.adverts)
    with pytest.raises(ProtocolError, match="already masked"):
        renewed["site-00"].masked(3, vectors["site-00"], "question")
    server.start(4, 50, "question")
    for name, member in renewed.items():
        server.collect(name, member.masked(4, vectors[name], "question"))
    replies = [renewed[name].unmask(q) for name, q in server.unmask_requests().items()]
    assert np.array_equal(server.open(replies).total, sum(vectors.values()))
    with pytest.raises(ProtocolError, match="only rises"):
        group.site("site-00", session=1)


def test_secrets_are_forgotten_at_the_end(tmp_path: Path) -> None:
    group = Consortium(3, 1, 3, folder=tmp_path)
    group.sites["site-00"].close()
    assert not (tmp_path / "site-00.json").exists()
    with pytest.raises(ProtocolError, match="no keys"):
        group.sites["site-00"].masked(1, np.arange(3), "question")


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    group = Consortium(3, 1, 3, folder=tmp_path)
    (tmp_path / "site-00.json").write_text("{}")
    with pytest.raises(ProtocolError, match="damaged"):
        group.site("site-00")


def test_messages_carry_no_secret_in_the_clear() -> None:
    group = Consortium(4, 1, 3)
    group.upload(1, group.vectors(), {"site-03"})
    replies = group.answers(set())
    site = group.sites["site-00"]
    assert site._keys is not None
    seeds = site._keys.seeds(sum_name(1, "question"), site._fresh).values()
    for reply in replies:
        blob = b"".join(array.tobytes() for array in reply.arrays.values())
        assert not any(seed in blob for seed in seeds)


def test_unmask_request_is_small() -> None:
    group = Consortium(10, 3, 8)
    group.upload(1, group.vectors(1000), set())
    header, payload = group.server.unmask_requests()["site-00"].encode()
    assert len(header) + len(payload) < 6000
