"""A server that keeps every message, and colluders that hand over all they have, try hard."""

from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy import stats

from common.errors import ProtocolError, RunError
from common.secure_sum import shares
from common.secure_sum.masks import apply_mask, to_signed, to_words
from common.secure_sum.messages import UnmaskReply, UnmaskRequest
from common.secure_sum.round_secrets import open_shares, sum_name
from common.secure_sum.server_rounds import SecureSumServer
from common.secure_sum.site_rounds import SecureSumSite

IDS = [f"s{i}" for i in range(10)]
T, N_MIN, D = 3, 7, 4000
COLLUDERS = IDS[:T]
VICTIM = "s5"


class Recorder:
    """Ten sites, and a server that keeps everything it sees."""

    def __init__(self) -> None:
        keys = {name: Ed25519PrivateKey.generate() for name in IDS}
        self.roster = {n: k.public_key().public_bytes_raw().hex() for n, k in keys.items()}
        self.sites = {
            n: SecureSumSite(n, keys[n], self.roster, T, N_MIN, run_id="r", study_digest="a" * 64)
            for n in IDS
        }
        self.server = SecureSumServer(self.sites["s0"].context, self.roster)
        self.adverts = [s.advertise() for s in self.sites.values()]
        agreed = self.server.agree(self.adverts)
        for site in self.sites.values():
            site.receive_keys(agreed.adverts)
        self.uploads: dict[str, dict[str, np.ndarray]] = {}
        self.replies: dict[str, UnmaskReply] = {}

    def play(self, number: int, vectors: dict[str, np.ndarray], lost: set[str]) -> np.ndarray:
        self.server.start(number, D, "question")
        self.uploads = {
            n: self.sites[n].masked(number, vectors[n], "question") for n in IDS if n not in lost
        }
        for name, upload in self.uploads.items():
            self.server.collect(name, upload)
        asked = self.server.unmask_requests()
        self.replies = {n: self.sites[n].unmask(q) for n, q in asked.items()}
        return self.server.open(list(self.replies.values())).total

    def known_shares(
        self, number: int, sender: str, sites: list[str]
    ) -> dict[str, dict[str, bytes]]:
        """What named sites hold of a sender's shares, by holder."""
        rows = self.uploads[sender]["sealed_shares"]
        return {
            holder: open_shares(
                self.sites[holder]._keys,
                sum_name(number, "question"),
                sender,
                rows[IDS.index(holder)],
            )
            for holder in sites
        }


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


def zeros_and_small() -> dict[str, np.ndarray]:
    """Inputs with so much structure that any leak would show."""
    return {name: np.full(D, IDS.index(name) * 1000 - 4500, dtype=np.int64) for name in IDS}


def looks_random(values: np.ndarray) -> bool:
    counts = np.bincount(values.astype("<i8").view(np.uint8), minlength=256)
    return bool(stats.chisquare(counts).pvalue > 1e-6)


def test_every_proper_combination_of_uploads_is_noise(recorder: Recorder) -> None:
    vectors = zeros_and_small()
    total = recorder.play(1, vectors, set())
    assert np.array_equal(total, sum(vectors.values()))
    words = {n: to_words(u["masked"], 64) for n, u in recorder.uploads.items()}
    for size in (1, 2, 5, 9, 10):
        for group in list(combinations(IDS, size))[:30]:
            part = sum(words[n] for n in group)
            assert looks_random(to_signed(np.asarray(part, dtype=np.uint64)))
    assert looks_random(to_signed(words["s1"] - words["s2"]))


def seeds_of(site, number):
    """The seeds of the site's newest upload."""
    return site._keys.seeds(sum_name(number, "question"), site._fresh)


def test_colluders_peel_off_their_own_part_and_no_more(recorder: Recorder) -> None:
    """With self masks known for all survivors, pairwise masks still hide each honest site."""
    vectors = zeros_and_small()
    total = recorder.play(2, vectors, set())
    honest = [n for n in IDS if n not in COLLUDERS]
    # what the server lawfully opens: every survivor's self seed
    peeled = {}
    for name in honest:
        word = to_words(recorder.uploads[name]["masked"], 64)
        apply_mask(word, seeds_of(recorder.sites[name], 2)[name], add=False)
        for friend in COLLUDERS:  # colluders know their pairwise seeds with everyone
            seed = seeds_of(recorder.sites[friend], 2)[name]
            apply_mask(word, seed, add=friend < name)
        peeled[name] = word
    for name in honest:
        assert looks_random(to_signed(peeled[name]))
    for group in combinations(honest, len(honest) - 1):
        assert looks_random(to_signed(np.asarray(sum(peeled[n] for n in group), dtype=np.uint64)))
    # all honest together: exactly the sum that is promised, minus the colluders' inputs
    everyone = to_signed(np.asarray(sum(peeled.values()), dtype=np.uint64))
    assert np.array_equal(everyone, total - sum(vectors[n] for n in COLLUDERS))


def test_colluders_cannot_combine_their_shares(recorder: Recorder) -> None:
    recorder.play(3, zeros_and_small(), set())
    held = recorder.known_shares(3, VICTIM, COLLUDERS)
    weights = shares.weights_at_zero([IDS.index(n) + 1 for n in COLLUDERS])
    victim_seeds = seeds_of(recorder.sites[VICTIM], 3)
    for peer in IDS:
        guess = shares.combine([held[n][peer] for n in COLLUDERS], weights)
        assert guess != victim_seeds[peer]


def test_one_round_opens_nothing_of_another(recorder: Recorder) -> None:
    recorder.play(4, zeros_and_small(), {"s9"})
    seeds4 = seeds_of(recorder.sites[VICTIM], 4)
    recorder.play(5, zeros_and_small(), set())
    seeds5 = seeds_of(recorder.sites[VICTIM], 5)
    assert not set(seeds4.values()) & set(seeds5.values())
    word = to_words(recorder.uploads[VICTIM]["masked"], 64)
    for peer, seed in seeds4.items():  # all of round 4's seeds, lawfully or not
        apply_mask(word, seed, add=peer < VICTIM)
    assert looks_random(to_signed(word))


def requests_with_lists(
    recorder: Recorder, lists: dict[str, list[str]]
) -> dict[str, UnmaskRequest]:
    """A server that tells each site its own list of survivors."""
    number = recorder.sites["s0"]._state.masked_round
    out = {}
    for name, survivors in lists.items():
        rows = np.stack([recorder.uploads[s]["sealed_shares"][IDS.index(name)] for s in survivors])
        asked = UnmaskRequest(run_id="r", session=1, round=number, survivors=survivors)
        out[name] = asked.model_copy(update={"arrays": {"sealed_shares": rows}})
    return out


def test_a_server_that_tells_different_lists_opens_nothing() -> None:
    """The split-view attack: half are told the victim survived, half that it was lost."""
    recorder = Recorder()
    vectors = zeros_and_small()
    recorder.server.start(1, D, "question")
    recorder.uploads = {n: recorder.sites[n].masked(1, vectors[n], "question") for n in IDS}
    for name, upload in recorder.uploads.items():
        recorder.server.collect(name, upload)
    recorder.server.unmask_requests()
    without = [n for n in IDS if n != VICTIM]
    honest = [n for n in IDS if n not in COLLUDERS]
    told_lost = [n for n in honest if n != VICTIM][:3]
    lists = {n: without if n in told_lost else IDS for n in honest}
    lists |= dict.fromkeys(COLLUDERS, IDS)
    replies = {
        n: recorder.sites[n].unmask(q) for n, q in requests_with_lists(recorder, lists).items()
    }
    # colluders answer for the other list as well: a fresh copy of a colluder would
    digest_of_lost = replies[told_lost[0]].list_digest
    assert digest_of_lost != replies["s0"].list_digest
    assert sum(r.list_digest == digest_of_lost for r in replies.values()) + T < 7
    # 7 sites were told that all survived: exactly the threshold, so this list may open,
    # and gives the sum over all; the other can never
    result = recorder.server.open(list(replies.values()))
    assert np.array_equal(result.total, sum(vectors.values()))


def test_an_even_split_voids_the_round_for_the_server() -> None:
    recorder = Recorder()
    vectors = zeros_and_small()
    recorder.server.start(1, D, "question")
    recorder.uploads = {n: recorder.sites[n].masked(1, vectors[n], "question") for n in IDS}
    for name, upload in recorder.uploads.items():
        recorder.server.collect(name, upload)
    recorder.server.unmask_requests()
    without = [n for n in IDS if n != VICTIM]
    lists = {n: without if i % 2 and n != VICTIM else IDS for i, n in enumerate(IDS)}
    replies = [recorder.sites[n].unmask(q) for n, q in requests_with_lists(recorder, lists).items()]
    with pytest.raises(RunError, match="void"):
        recorder.server.open(replies)


def test_a_server_cannot_have_both_masks_of_a_site(recorder: Recorder) -> None:
    recorder.server.start(9, D, "question")
    vectors = zeros_and_small()
    recorder.uploads = {n: recorder.sites[n].masked(9, vectors[n], "question") for n in IDS}
    first = requests_with_lists(recorder, dict.fromkeys(IDS, IDS))
    without = [n for n in IDS if n != VICTIM]
    second = requests_with_lists(recorder, dict.fromkeys(without, without))
    for name in without:
        recorder.sites[name].unmask(first[name])
        with pytest.raises(ProtocolError, match="another list"):
            recorder.sites[name].unmask(second[name])


def test_inputs_and_uploads_are_uncorrelated(recorder: Recorder) -> None:
    dice = np.random.default_rng(8)
    vectors = {n: dice.integers(-(2**40), 2**40, D) for n in IDS}
    recorder.play(10, vectors, set())
    for name in IDS:
        seen = recorder.uploads[name]["masked"].astype(float)
        assert abs(np.corrcoef(seen, vectors[name].astype(float))[0, 1]) < 0.08
