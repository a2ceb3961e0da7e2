"""Secrets of one sum at one site: the seeds of its masks, and their shares for other sites.

For each sum a site shares its self seed and its seed with each other site, so the sum can be
finished without whoever drops out after uploading. Every secret depends on the number of the sum
and on the question it answers (`sum_name`): two sites that were asked different questions share
no mask, and cannot read each other's shares.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.contract import sha256_hex
from common.secure_sum import shares
from common.secure_sum.keys import (
    Participants,
    RunSecrets,
    derive,
    pair_secret,
    refused,
)
from common.secure_sum.masks import mask_seed

Bytes = npt.NDArray[np.uint8]
_NONCE_BYTES = 12


@dataclass(frozen=True)
class SiteKeys:
    """What a site derives once from its secrets and the participants' keys.

    Attributes:
        site_id: The site.
        participants: Whose keys they are.
        masks: Every other site -> secret of their pairwise masks.
        channels: Every site in order -> secret of the channel to it; its own for itself.
        self_secret: Secret of the self masks.
    """

    site_id: str
    participants: Participants
    masks: dict[str, bytes]
    channels: dict[str, bytes]
    self_secret: bytes

    @classmethod
    def agree(cls, site_id: str, participants: Participants, own: RunSecrets) -> "SiteKeys":
        """Return the keys of one site.

        Raises:
            ProtocolError: A peer's key is not usable.
        """
        salt, masks, channels = participants.digest, {}, {}
        for advert in participants.adverts:
            peer = advert.site_id
            if peer == site_id:
                channels[peer] = derive(own.self_secret, salt, "channel to itself")
                continue
            pair = "|".join(sorted((site_id, peer)))
            masks[peer] = pair_secret(own.mask_key, advert.mask_key, salt, f"masks|{pair}")
            channels[peer] = pair_secret(
                own.channel_key, advert.channel_key, salt, f"channel|{pair}"
            )
        return cls(site_id, participants, masks, channels, own.self_secret)

    def within(self, group: Participants) -> "SiteKeys":
        """Return the keys for the sums of a group that holds this site; masks are the group's."""
        names = group.site_ids
        masks = {name: self.masks[name] for name in names if name != self.site_id}
        channels = {name: self.channels[name] for name in names}
        return SiteKeys(self.site_id, group, masks, channels, self.self_secret)

    def seeds(self, about: str, fresh: bytes) -> dict[str, bytes]:
        """Return the seeds of a sum in the order of participants.

        Peer -> pairwise seed; under the site's own id the self seed, which depends on `fresh`: a
        site that was put back to an earlier state masks a second vector of the same sum
        differently, so that the difference of the two uploads is none of the vectors.
        """
        salt = self.participants.digest
        return {
            peer: mask_seed(self.self_secret, salt, f"self|{fresh.hex()}", about)
            if peer == self.site_id
            else mask_seed(self.masks[peer], salt, "pair", about)
            for peer in self.participants.site_ids
        }


def sum_name(number: int, question: str) -> str:
    """Return what one sum is called in every secret of it.

    Args:
        number: Number of the sum; rises in a run.
        question: Digest of what was asked, length of the answer included.
    """
    return f"round {number}|{question}"


def commitment(participants: Participants, owner: str, peer: str, about: str, seed: bytes) -> bytes:
    """Return what a site publishes of a seed, so that a wrong share is noticed, 32 bytes."""
    text = f"{participants.digest}|{owner}|{peer}|{about}|{seed.hex()}"
    return bytes.fromhex(sha256_hex(text))


def commitments(keys: SiteKeys, about: str, seeds: Mapping[str, bytes]) -> Bytes:
    """Return the commitments to all seeds of a site, (N, 32)."""
    digests = [commitment(keys.participants, keys.site_id, p, about, s) for p, s in seeds.items()]
    return _rows(digests)


def seal_shares(keys: SiteKeys, about: str, seeds: Mapping[str, bytes]) -> Bytes:
    """Return the shares of all seeds, sealed for each participant, (N, 33 N + 28)."""
    count, threshold = len(seeds), keys.participants.collusion.threshold
    parts = [shares.split(seed, count, threshold) for seed in seeds.values()]
    rows = []
    for column, (peer, channel) in enumerate(keys.channels.items()):
        plain = b"".join(part[column] for part in parts)
        nonce = os.urandom(_NONCE_BYTES)
        key = _share_key(channel, keys.site_id, peer, about)
        rows.append(nonce + AESGCM(key).encrypt(nonce, plain, None))
    return _rows(rows)


def open_shares(keys: SiteKeys, about: str, sender: str, row: Bytes) -> dict[str, bytes]:
    """Return the shares a sender sealed for this site: peer -> share of its seed with that peer.

    Raises:
        ProtocolError: The row was changed, or sealed for another sum, question or site.
    """
    raw = row.tobytes()
    key = _share_key(keys.channels[sender], sender, keys.site_id, about)
    try:
        plain = AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        raise refused(
            f"the shares of '{sender}' were changed on their way, or answer another question"
        ) from None
    size, names = shares.SHARE_BYTES, keys.participants.site_ids
    if len(plain) != size * len(names):
        raise refused(f"the shares of '{sender}' are incomplete")
    return {name: plain[i * size : (i + 1) * size] for i, name in enumerate(names)}


def _share_key(channel: bytes, sender: str, recipient: str, about: str) -> bytes:
    return derive(channel, f"shares|{about}", f"{sender}|{recipient}")


def _rows(parts: list[bytes]) -> Bytes:
    return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(len(parts), -1)
