import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.secure_sum import shares
from common.secure_sum.list_lock import LockedAnswer, lock, unlock
from common.secure_sum.masks import apply_mask, mask_seed, to_signed, to_words


def test_the_field_is_prime() -> None:
    # Miller-Rabin with 40 random bases
    n, d, r = shares.PRIME, shares.PRIME - 1, 0
    while d % 2 == 0:
        d, r = d // 2, r + 1
    for _ in range(40):
        x = pow(secrets.randbelow(n - 3) + 2, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(r - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            pytest.fail("composite")


@given(secret=st.binary(min_size=32, max_size=32), count=st.integers(3, 12), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_threshold_of_shares_gives_the_secret_and_one_fewer_does_not(
    secret: bytes, count: int, data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(2, count))
    parts = shares.split(secret, count, threshold)
    chosen = data.draw(st.permutations(range(1, count + 1)))[:threshold]
    weights = shares.weights_at_zero(chosen)
    assert shares.combine([parts[x - 1] for x in chosen], weights) == secret
    fewer = chosen[:-1]
    guess = shares.combine([parts[x - 1] for x in fewer], shares.weights_at_zero(fewer))
    assert guess != secret


def test_shares_of_a_known_polynomial() -> None:
    # secret 7, polynomial 7 + 3x + 2x^2: shares 12, 21, 34
    parts = [value.to_bytes(33, "little") for value in (12, 21, 34)]
    assert shares.weights_at_zero([1, 2, 3]) == [3, shares.PRIME - 3, 1]
    assert int.from_bytes(shares.combine(parts, [3, shares.PRIME - 3, 1]), "little") == 7


@pytest.mark.parametrize("bits", [32, 64])
def test_masks_are_the_aes_counter_stream_and_cancel(bits: int) -> None:
    vector = np.random.default_rng(0).integers(-(2**30), 2**30, 300_007)
    seed = bytes(range(32))
    words = to_words(vector, bits)
    apply_mask(words, seed, add=True)
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    whole = np.frombuffer(stream.update(bytes(words.nbytes)), dtype=words.dtype)
    assert np.array_equal(words, to_words(vector, bits) + whole)
    assert stats.chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue > 1e-4
    apply_mask(words, seed, add=False)
    assert np.array_equal(to_signed(words), vector)


def test_every_bit_of_the_key_and_every_round_changes_the_mask() -> None:
    seen = set()
    for bit in range(256):
        words = to_words(np.zeros(4, dtype=np.int64), 64)
        apply_mask(words, (1 << bit).to_bytes(32, "little"), add=True)
        seen.add(words.tobytes())
    assert len(seen) == 256
    seeds = {mask_seed(b"x" * 32, "d", p, a) for p in ("self", "pair") for a in ("1", "2")}
    assert len(seeds) == 4


def channels(names: list[str]) -> dict[str, dict[str, bytes]]:
    pairs: dict[frozenset[str], bytes] = {}
    return {
        a: {b: pairs.setdefault(frozenset((a, b)), secrets.token_bytes(32)) for b in names}
        for a in names
    }


def opened(owner: str, answers: dict[str, LockedAnswer], names: list[str], about: str):
    numbers = [names.index(name) + 1 for name in answers]
    weights = dict(zip(answers, shares.weights_at_zero(numbers), strict=True))
    return unlock(owner, answers, weights, about)


def test_answers_open_only_if_enough_sites_were_told_the_same_list() -> None:
    names = [f"s{i}" for i in range(7)]
    secret, threshold = channels(names), 5
    for agreeing in range(1, 8):
        told = {name: "list A" if i < agreeing else "list B" for i, name in enumerate(names)}
        answers = {
            n: lock(b"answer of " + n.encode(), n, secret[n], threshold, told[n]) for n in names
        }
        got = opened("s0", answers, names, "list A")
        only = opened("s0", {n: answers[n] for n in names[:agreeing]}, names, "list A")
        assert (only == b"answer of s0") == (agreeing >= threshold)
        assert (got == b"answer of s0") == (agreeing == 7)
