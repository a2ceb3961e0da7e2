"""Prove that a message comes from a site: its registered identity signs the server's challenge.

A Flower node that authenticates is one the consortium admitted, not yet the site it claims to
be. The server therefore sends each node a fresh random challenge; the site agent signs it
together with its name. An old answer is of no use: it signs another challenge.
"""

import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.trust.signature import is_signed, sign

PURPOSE = "site proof v1"
CHALLENGE = r"^[0-9a-f]{64}$"


def new_challenge() -> str:
    """Return 32 fresh random bytes in hex; each is used once."""
    return secrets.token_hex(32)


def prove(identity: Ed25519PrivateKey, site_id: str, challenge: str) -> str:
    """Return the site's signature (hex) over its name and a challenge."""
    return sign(identity, PURPOSE, _body(site_id, challenge))


def is_proven(public_key: str, site_id: str, challenge: str, proof: str | None) -> bool:
    """Return whether a proof is that of the registered key (hex), for this very challenge."""
    return proof is not None and is_signed(public_key, PURPOSE, _body(site_id, challenge), proof)


def _body(site_id: str, challenge: str) -> dict[str, str]:
    return {"site_id": site_id, "challenge": challenge}
