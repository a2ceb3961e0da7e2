"""The hospital's identity: an Ed25519 key that signs its keys of the secure sum.

The public half stands in the study's roster; the private half never leaves the hospital.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import ConfigError


def create_identity(path: Path) -> str:
    """Make a new identity, readable by its owner alone, and return its public key in hex.

    Raises:
        ConfigError: There is one already; it is never overwritten.
    """
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(
            "this hospital has an identity already",
            where=str(path),
            why="a new one would not be the one on the roster",
            cure="keep it; to replace it, move the file away and ask for admission anew",
        ) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(key.private_bytes_raw().hex() + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return public_key(key)


def load_identity(path: Path) -> Ed25519PrivateKey:
    """Return the hospital's identity.

    Raises:
        ConfigError: The file is missing or holds no key.
    """
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text("ascii").strip()))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the identity of this hospital cannot be read",
            where=str(path),
            why=type(error).__name__,
            cure="make one with `tumorboard site keygen`, or restore it from backup",
        ) from None


def public_key(identity: Ed25519PrivateKey) -> str:
    """Return the public half in hex, as it stands in the roster."""
    return identity.public_key().public_bytes_raw().hex()
