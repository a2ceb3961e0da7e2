"""Lock answers so that they open only if enough sites received the same list of survivors.

A server that sends different sites different lists could collect the self mask of one site from
some and its pairwise masks from others. Bonawitz et al. (2017) stop this with one more exchange
in which sites sign the list. Here the answer itself is locked: it is encrypted under a fresh
key; the key is Shamir-shared, and each share is covered by a value that only its holder can
recompute, and does recompute only for the one list it received. The server opens an answer when
`threshold` sites received the list that the answering site received. More than (N + t)/2 are
needed, so at most one list a round can be opened, in the same exchange.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.secure_sum import shares
from common.secure_sum.keys import derive

_NONCE = bytes(12)
"""Every key is fresh and encrypts once."""


@dataclass(frozen=True)
class LockedAnswer:
    """What a site sends in place of its answer.

    Attributes:
        sealed: The answer under a fresh key.
        covered: Site id -> its share of that key, covered; the owner's own share is open.
        tokens: Site id -> what uncovers the owner's share of that site's key.
    """

    sealed: bytes
    covered: dict[str, bytes]
    tokens: dict[str, bytes]


def lock(
    answer: bytes, owner: str, channels: Mapping[str, bytes], threshold: int, about: str
) -> LockedAnswer:
    """Return the locked answer of one site.

    Args:
        answer: What to lock.
        owner: The site.
        channels: All participants in order -> secret shared with them (the owner's own too).
        threshold: Sites that must agree.
        about: Names sum, question and list of survivors; binds everything.
    """
    key = os.urandom(32)
    parts = shares.split(key, len(channels), threshold)
    masks, tokens = {}, {}
    for (site, channel), part in zip(channels.items(), parts, strict=True):
        masks[site] = part if site == owner else _xor(part, _cover(channel, owner, about))
        tokens[site] = bytes(len(part)) if site == owner else _cover(channel, site, about)
    return LockedAnswer(AESGCM(key).encrypt(_NONCE, answer, about.encode()), masks, tokens)


def unlock(
    owner: str, answers: Mapping[str, LockedAnswer], weights: Mapping[str, int], about: str
) -> bytes | None:
    """Return a site's answer, or None if too few of `answers` are about its list.

    Args:
        owner: Whose answer.
        answers: Locked answers about one list.
        weights: Of the sites whose answers help: site id -> Lagrange weight of its shares.
        about: As in `lock`.
    """
    helpers = list(weights)
    parts = [
        _xor(answers[owner].covered[helper], answers[helper].tokens[owner])
        if helper != owner
        else answers[owner].covered[owner]
        for helper in helpers
    ]
    key = shares.combine(parts, list(weights.values()))
    if key is None:
        return None
    try:
        return AESGCM(key).decrypt(_NONCE, answers[owner].sealed, about.encode())
    except InvalidTag:
        return None


def _cover(channel: bytes, owner: str, about: str) -> bytes:
    return derive(channel, about, f"cover|{owner}", length=shares.SHARE_BYTES)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
