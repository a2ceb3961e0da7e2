"""Sums over public random groups: everybody computes the same groups, and nobody can move one."""

from collections import Counter

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ErrorCode, PrivacyError, ProtocolError, RunError
from common.privacy.collusion import Collusion
from common.privacy.plan import PrivacyPlan
from common.secure_sum.groups import groups_of
from common.secure_sum.keys import Groups
from common.secure_sum.messages import UnmaskRequest
from common.secure_sum.server_rounds import SecureSumServer
from common.secure_sum.site_rounds import SecureSumSite


class Grouped:
    """N sites in groups, and a server, that have agreed on keys."""

    def __init__(self, n, count, t=1, n_min=3):
        self.ids = [f"site-{i:02d}" for i in range(n)]
        keys = {name: Ed25519PrivateKey.generate() for name in self.ids}
        roster = {name: key.public_key().public_bytes_raw().hex() for name, key in keys.items()}
        whole = Collusion.of_plan(PrivacyPlan(), n)
        self.sites = {
            name: SecureSumSite(
                name,
                keys[name],
                roster,
                whole.colluders,
                whole.n_min,
                run_id="run",
                study_digest="a" * 64,
                groups=Groups(count=count, colluders=t, n_min=n_min),
            )
            for name in self.ids
        }
        self.server = SecureSumServer(self.sites[self.ids[0]].context, roster)
        self.participants = self.server.agree([s.advertise() for s in self.sites.values()])
        for site in self.sites.values():
            site.receive_keys(self.participants.adverts)

    def upload(self, number, vectors, lost=()):
        """Return the server's parts after everybody who is not lost has uploaded."""
        parts = self.server.by_group(number)
        for part in parts:
            part.start(number, len(vectors[self.ids[0]]), "question")
            for name in set(part.site_ids) - set(lost):
                upload = self.sites[name].masked(number, vectors[name], "question", grouped=True)
                part.collect(name, upload)
        return parts

    def answers(self, part):
        asked = part.unmask_requests()
        return [self.sites[n].unmask(UnmaskRequest.decode(*r.encode())) for n, r in asked.items()]

    def vectors(self, seed=0, d=20):
        dice = np.random.default_rng(seed)
        return {name: dice.integers(-(2**24), 2**24, d) for name in self.ids}


@given(n=st.integers(9, 40), count=st.integers(3, 8), number=st.integers(1, 10**6))
@settings(max_examples=30, deadline=None)
def test_groups_are_a_partition_as_even_as_can_be(n, count, number):
    if n // count < 3:
        with pytest.raises(PrivacyError, match=f"the roster has {n}"):
            Collusion.of_groups(PrivacyPlan(groups=count), n)
        return
    numbers = Collusion.of_groups(PrivacyPlan(groups=count), n)
    whole = Grouped(n, count, numbers.colluders, numbers.n_min)
    groups = groups_of(whole.participants, number)
    sizes = [len(group.adverts) for group in groups]
    assert sum(sizes) == n
    assert sorted(name for group in groups for name in group.site_ids) == whole.ids
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    for group in groups:
        assert group.collusion.threshold <= group.context.n_min <= len(group.adverts)
    assert groups == groups_of(whole.participants, number)


def test_every_two_sites_meet_as_often_as_chance_says():
    whole = Grouped(9, 3)
    together = Counter()
    for number in range(1, 1001):
        for group in groups_of(whole.participants, number):
            names = group.site_ids
            together.update((a, b) for a in names for b in names if a < b)
    counts = np.array(list(together.values()))
    assert len(counts) == 36
    expected = 1000 * 2 / 8
    chi_squared = float(((counts - expected) ** 2 / (expected * 6 / 8)).sum())
    assert chi_squared < 80  # 36 pairs; a fixed partition gives 27,000
    assert groups_of(whole.participants, 1) != groups_of(Grouped(9, 3).participants, 1)


def test_each_group_opens_its_own_sum():
    whole, d = Grouped(12, 4), 20
    for number in (1, 2):
        vectors = whole.vectors(number, d)
        for part in whole.upload(number, vectors):
            opened = part.open(whole.answers(part))
            assert opened.survivors == part.site_ids
            assert np.array_equal(opened.total, sum(vectors[n] for n in part.site_ids))


def test_a_group_that_loses_a_site_is_void_and_the_others_open():
    whole = Grouped(12, 4)
    vectors = whole.vectors()
    parts = whole.upload(1, vectors, lost={"site-00"})
    for part in parts:
        if "site-00" in part.site_ids:
            with pytest.raises(RunError, match="void"):
                part.unmask_requests()
            continue
        opened = part.open(whole.answers(part))
        assert np.array_equal(opened.total, sum(vectors[n] for n in part.site_ids))


def test_a_site_answers_no_list_of_another_group():
    """A server that puts a hospital among others than the public draw says gets nothing."""
    whole = Grouped(12, 3)
    first, second, _ = whole.upload(1, whole.vectors())
    asked, others = first.unmask_requests(), second.unmask_requests()
    victim, stranger = next(iter(asked)), next(iter(others))
    request = asked[victim]
    moved = sorted([victim, stranger, *request.survivors[2:]])
    for survivors in (moved, sorted([*request.survivors, stranger])):
        forged = request.model_copy(update={"survivors": survivors})
        with pytest.raises(ProtocolError, match="stranger") as caught:
            whole.sites[victim].unmask(forged)
        assert caught.value.code == ErrorCode.SECURE_SUM
    assert whole.sites[victim].unmask(request).arrays


def test_a_vector_masked_for_a_group_is_no_part_of_another_sum():
    """Masks of the group do not cancel in a sum of all, nor in that of another group."""
    whole = Grouped(9, 3)
    vectors = whole.vectors()
    total = np.zeros(20, dtype=np.int64)
    for name in whole.ids:
        upload = whole.sites[name].masked(1, vectors[name], "question", grouped=True)
        total = total + upload["masked"]
    assert not np.array_equal(total, sum(vectors.values()))


def test_with_too_few_sites_for_three_groups_nothing_is_masked():
    whole = Grouped(8, 3)
    with pytest.raises(ProtocolError, match="do not fill 3 groups"):
        whole.upload(1, whole.vectors())
    with pytest.raises(ProtocolError, match="do not fill 3 groups"):
        whole.sites["site-00"].masked(1, np.zeros(3, np.int64), "question", grouped=True)
