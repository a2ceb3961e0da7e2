"""Members of a consortium: a list signed by the coordinator, whose version only increases.

Sites pin the public key that signs it and the last version they saw, so neither another
coordinator nor an older list, from before a revocation, is taken for the present one. The key that
signs lies offline: a server that was broken into can pass a list on, and make none.
"""

from pathlib import Path
from typing import Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError, model_validator

from common.contract import Contract, canonical_json, sha256_hex
from common.errors import ErrorCode, ProtocolError
from common.storage.atomic_file import write_text
from common.study.study import Identifier
from common.trust.signature import PUBLIC_KEY, SIGNATURE, is_signed, sign, spoken

PURPOSE = "roster v1"
NODE_KEY = r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/=]{100,300}$"
"""Public key of a SuperNode, P-384 in OpenSSH format, without comment."""


class Member(Contract):
    """One hospital of the consortium.

    Attributes:
        site_id: Name of the site.
        name: Name people read.
        identity: Ed25519 public key of the hospital, hex.
        node_key: Public key its SuperNode authenticates with.
        status: Whether it may take part.
        since: When the status began, UTC, ISO 8601.
        reason: Why it was revoked.
    """

    site_id: Identifier
    name: str = Field(default="", max_length=200)
    identity: str = Field(pattern=PUBLIC_KEY)
    node_key: str = Field(pattern=NODE_KEY)
    status: Literal["admitted", "revoked"] = "admitted"
    since: str
    reason: str = Field(default="", max_length=500)

    @property
    def fingerprint(self) -> str:
        """Digest of both keys as people compare it by telephone."""
        keys = {"identity": self.identity, "node_key": self.node_key}
        return spoken(sha256_hex(canonical_json(keys)))


class Roster(Contract):
    """All hospitals ever admitted; a revoked one stays, so that its keys never come back."""

    consortium: Identifier
    version: int = Field(ge=0)
    members: list[Member] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_unique(self) -> Self:
        for name in ("identity", "node_key"):
            values = [getattr(member, name) for member in self.members]
            if len(set(values)) < len(values):
                raise ValueError(f"two members share one {name}")
        site_ids = [member.site_id for member in self.admitted]
        if len(set(site_ids)) < len(site_ids):
            raise ValueError("two admitted members share one site_id")
        return self

    @property
    def fingerprint(self) -> str:
        """Digest of the roster as people compare it by telephone."""
        return spoken(self.digest())

    @property
    def admitted(self) -> list[Member]:
        """Members that may take part."""
        return [member for member in self.members if member.status == "admitted"]

    def member(self, site_id: str) -> Member | None:
        """Return the admitted member of this name, else the last revoked one, else None."""
        hits = [member for member in self.members if member.site_id == site_id]
        return next((m for m in hits if m.status == "admitted"), hits[-1] if hits else None)

    def following(self, members: list[Member]) -> "Roster":
        """Return the next version with other members.

        Raises:
            pydantic.ValidationError: Two members share a key or an admitted name.
        """
        return Roster(consortium=self.consortium, version=self.version + 1, members=members)


class SignedRoster(Contract):
    """A roster and the coordinator's signature over it."""

    roster: Roster
    signature: str = Field(pattern=SIGNATURE)

    @classmethod
    def make(cls, roster: Roster, key: Ed25519PrivateKey) -> Self:
        """Return the roster signed by the coordinator's key."""
        return cls(roster=roster, signature=sign(key, PURPOSE, roster.model_dump(mode="json")))

    def text(self) -> str:
        """Return it as canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_text(path, self.text() + "\n")


def read_roster(path: Path, public_key: str, *, known: Roster | None = None) -> Roster:
    """Return the roster of a file; see `parse_roster`.

    Raises:
        ProtocolError: The file cannot be read, or its roster is refused (ROSTER).
    """
    return read_signed_roster(path, public_key, known=known).roster


def read_signed_roster(path: Path, public_key: str, *, known: Roster | None = None) -> SignedRoster:
    """Return the roster of a file with its signature; see `parse_roster`.

    Raises:
        ProtocolError: The file cannot be read, or its roster is refused (ROSTER).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _refused("the roster cannot be read", str(path), type(error).__name__) from None
    return parse_roster(text, public_key, where=str(path), known=known)


def parse_roster(
    text: str, public_key: str, *, where: str, known: Roster | None = None
) -> SignedRoster:
    """Return a signed roster after checking who signed it, and that it is not older.

    Args:
        text: JSON of the signed roster.
        public_key: Key of the coordinator as pinned here, hex.
        where: Where it comes from, for errors.
        known: The last roster seen; None accepts any version.

    Raises:
        ProtocolError: It cannot be read, was altered, is signed by another key, is of another
            consortium, or is older than (or contradicts) the one already known (ROSTER).
    """
    try:
        signed = SignedRoster.model_validate_json(text)
    except ValidationError as error:
        raise _refused("the roster cannot be read", where, type(error).__name__) from None
    roster = signed.roster
    if not is_signed(public_key, PURPOSE, roster.model_dump(mode="json"), signed.signature):
        raise _refused(
            "the roster is not signed by this consortium's coordinator",
            where,
            "it was altered, or another key signed it",
        )
    if known is not None:
        _check_successor(roster, known, where)
    return signed


def _check_successor(roster: Roster, known: Roster, where: str) -> None:
    if roster.consortium != known.consortium:
        raise _refused(
            "the roster is of another consortium",
            where,
            f"'{roster.consortium}', here '{known.consortium}'",
        )
    if roster.version < known.version:
        raise _refused(
            "the roster is older than the one known here",
            where,
            f"version {roster.version}, known {known.version}: a revoked site could come back",
        )
    if roster.version == known.version and roster != known:
        raise _refused(
            "two rosters claim the same version",
            where,
            f"version {roster.version} was seen with other members",
        )


def _refused(what: str, where: str, why: str) -> ProtocolError:
    return ProtocolError(
        what,
        where=where,
        why=why,
        cure="ask the coordinator for the current roster, and compare its fingerprint by telephone",
        code=ErrorCode.ROSTER,
    )
