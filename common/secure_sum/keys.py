"""Agree on the keys of a secure sum: X25519 keys per run, signed by each site's identity.

Every secret of a pair is bound to the whole set of signed keys that both were shown: two sites
that were shown different sets derive different secrets, and their masks do not cancel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field

from common.contract import Contract, canonical_json, sha256_hex
from common.errors import ErrorCode, ProtocolError
from common.privacy.collusion import Collusion
from common.privacy.plan import FEWEST_GROUPS
from common.secure_sum.ledger_mark import LedgerMark

_HEX64 = r"^[0-9a-f]{64}$"
_HEX128 = r"^[0-9a-f]{128}$"


class Groups(Contract):
    """Numbers of the sums over groups in a round of training; see `groups`."""

    count: int = Field(ge=FEWEST_GROUPS)
    colluders: int = Field(ge=1, description="t of each group's sum")
    n_min: int = Field(ge=1, description="fewest sites of a group whose sum is opened")


class SumContext(Contract):
    """What a key agreement is for; every signature and every secret depends on it."""

    protocol: Literal["tumorboard-secure-sum-1"] = "tumorboard-secure-sum-1"
    run_id: str = Field(min_length=1, max_length=128)
    session: int = Field(default=1, ge=1, description="key agreements of this run so far")
    study_digest: str = Field(pattern=_HEX64)
    colluders: int = Field(ge=1)
    n_min: int = Field(ge=1)
    modulus_bits: Literal[32, 64] = 64
    groups: Groups | None = Field(default=None, exclude_if=lambda groups: groups is None)

    @property
    def fewest(self) -> int:
        """Fewest sites with which keys are agreed on: enough for every sum."""
        return max(self.n_min, FEWEST_GROUPS * self.groups.n_min if self.groups else 0)


class KeyAdvert(Contract):
    """One site's public keys for one context, signed by its identity."""

    site_id: str = Field(min_length=1, max_length=64)
    context_digest: str = Field(pattern=_HEX64)
    mask_key: str = Field(pattern=_HEX64, description="X25519, for pairwise masks")
    channel_key: str = Field(pattern=_HEX64, description="X25519, for shares between sites")
    witnessed: tuple[LedgerMark, ...] = Field(
        default=(), description="newest marks of other sites' ledgers that this one remembers"
    )
    signature: str = Field(default="0" * 128, pattern=_HEX128)

    def signed_bytes(self) -> bytes:
        """Return what the signature covers; keys from before there were marks carry none."""
        unsigned = {"signature"} if self.witnessed else {"signature", "witnessed"}
        return canonical_json(self.model_dump(mode="json", exclude=unsigned)).encode()


@dataclass(frozen=True)
class RunSecrets:
    """A site's secrets for one key agreement, 32 bytes each; they never leave the site."""

    mask_key: bytes
    channel_key: bytes
    self_secret: bytes


@dataclass(frozen=True)
class Participants:
    """The sites whose signed keys everyone was shown.

    Attributes:
        context: What the keys are for.
        adverts: In the order of site ids.
    """

    context: SumContext
    adverts: tuple[KeyAdvert, ...]

    def advert_of(self, site_id: str) -> KeyAdvert | None:
        """Return the signed keys of one site, or None if it does not take part."""
        return next((advert for advert in self.adverts if advert.site_id == site_id), None)

    @property
    def site_ids(self) -> list[str]:
        """All sites, sorted."""
        return [advert.site_id for advert in self.adverts]

    @property
    def digest(self) -> str:
        """SHA-256 of context and all signed keys."""
        parts = [self.context.digest(), *(a.signed_bytes().decode() for a in self.adverts)]
        return sha256_hex(canonical_json(parts))

    @property
    def collusion(self) -> Collusion:
        """N, t, n_min and the threshold of these sites."""
        return Collusion(len(self.adverts), self.context.colluders, self.context.n_min)

    def number(self, site_id: str) -> int:
        """Return the site's number 1..N, the x of its Shamir shares."""
        return self.site_ids.index(site_id) + 1


def advertise(
    identity: Ed25519PrivateKey,
    site_id: str,
    context: SumContext,
    secrets: RunSecrets,
    witnessed: tuple[LedgerMark, ...] = (),
) -> KeyAdvert:
    """Return the signed public keys of a site, with the marks it remembers of others' ledgers."""
    mask = X25519PrivateKey.from_private_bytes(secrets.mask_key).public_key()
    channel = X25519PrivateKey.from_private_bytes(secrets.channel_key).public_key()
    advert = KeyAdvert(
        site_id=site_id,
        context_digest=context.digest(),
        mask_key=mask.public_bytes_raw().hex(),
        channel_key=channel.public_bytes_raw().hex(),
        witnessed=witnessed,
    )
    return advert.model_copy(update={"signature": identity.sign(advert.signed_bytes()).hex()})


def check_adverts(
    adverts: Sequence[KeyAdvert], roster: Mapping[str, str], context: SumContext
) -> Participants:
    """Return the participants after checking every signature.

    Args:
        adverts: Signed keys, each site once.
        roster: Registered identity by site id: Ed25519 public key in hex.
        context: What the keys must be for.

    Raises:
        ProtocolError: A key is unsigned, of a stranger, for another purpose or used twice.
        PrivacyError: Too few sites for n_min and t.
    """
    names: set[str] = set()
    for advert in adverts:
        if advert.site_id not in roster:
            raise refused(f"site '{advert.site_id}' is not on the roster")
        if advert.context_digest != context.digest():
            raise refused(f"the keys of '{advert.site_id}' are for another run or plan")
        try:
            identity = Ed25519PublicKey.from_public_bytes(bytes.fromhex(roster[advert.site_id]))
            identity.verify(bytes.fromhex(advert.signature), advert.signed_bytes())
        except (InvalidSignature, ValueError):
            raise refused(
                f"the keys of '{advert.site_id}' are not signed by its registered identity"
            ) from None
        values = {advert.site_id, advert.mask_key, advert.channel_key}
        if len(values) != 3 or values & names:
            raise refused(f"a key or name of '{advert.site_id}' is used twice")
        names |= values
    by_site = tuple(sorted(adverts, key=lambda advert: advert.site_id))
    participants = Participants(context, by_site)
    _ = participants.collusion
    return participants


def pair_secret(own: bytes, peer_public: str, salt: str, purpose: str) -> bytes:
    """Return the 32-byte secret of two sites: X25519, then HKDF-SHA256.

    Args:
        own: X25519 private key, 32 bytes.
        peer_public: The peer's public key, hex.
        salt: Digest of the participants.
        purpose: Separates uses; the same on both sides.

    Raises:
        ProtocolError: The peer's key is a point of small order.
    """
    try:
        peer = X25519PublicKey.from_public_bytes(bytes.fromhex(peer_public))
        shared = X25519PrivateKey.from_private_bytes(own).exchange(peer)
    except ValueError:
        raise refused("a peer's key is not a usable X25519 key") from None
    return derive(shared, salt, purpose)


def derive(secret: bytes, salt: str, purpose: str, *, length: int = 32) -> bytes:
    """Return `length` bytes of HKDF-SHA256."""
    hkdf = HKDF(algorithm=SHA256(), length=length, salt=salt.encode(), info=purpose.encode())
    return hkdf.derive(secret)


def refused(what: str, cure: str = "") -> ProtocolError:
    """Return the error with which either side stops a secure sum."""
    return ProtocolError(
        what,
        where="secure sum",
        why="going on could open more than the sum over the surviving sites",
        cure=cure or "compare the rosters and the run on both sides, then agree on keys again",
        code=ErrorCode.SECURE_SUM,
    )
