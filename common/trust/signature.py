"""Sign canonical JSON with Ed25519, each signature bound to one purpose.

The purpose is part of what is signed, so a signature made for one kind of document never
passes for another, even where one key signs both.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.contract import canonical_json

PUBLIC_KEY = r"^[0-9a-f]{64}$"
"""An Ed25519 public key in hex."""

SIGNATURE = r"^[0-9a-f]{128}$"
"""An Ed25519 signature in hex."""


def signed_bytes(purpose: str, body: object) -> bytes:
    """Return the bytes that are signed: the purpose, a line end, the canonical JSON."""
    return f"tumorboard {purpose}\n{canonical_json(body)}".encode()


def sign(key: Ed25519PrivateKey, purpose: str, body: object) -> str:
    """Return the signature of a JSON value for one purpose, in hex."""
    return key.sign(signed_bytes(purpose, body)).hex()


def is_signed(public_key: str, purpose: str, body: object, signature: str) -> bool:
    """Return whether the signature (hex) of a JSON value is that of a public key (hex)."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), signed_bytes(purpose, body))
    except (InvalidSignature, ValueError):
        return False
    return True


def public_half(key: Ed25519PrivateKey) -> str:
    """Return the public key in hex."""
    return key.public_key().public_bytes_raw().hex()


def spoken(digest: str) -> str:
    """Return the first 128 bits of a digest in groups of four, to compare by telephone.

    Example:
        >>> spoken("0123456789abcdef" * 4)
        '0123 4567 89ab cdef 0123 4567 89ab cdef'
    """
    return " ".join(digest[at : at + 4] for at in range(0, 32, 4))
