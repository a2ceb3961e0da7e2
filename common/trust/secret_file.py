"""Secret keys on disk: readable by their owner alone, and never overwritten."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import ConfigError
from common.storage.atomic_file import sync

OTHERS = 0o077
"""Permission bits that let anybody but the owner at a file."""


def write_new_secret(path: Path, data: bytes) -> None:
    """Write a secret to a new file with permissions 0600, and force it to disk.

    Raises:
        FileExistsError: There is a file already; it is left as it is.
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    sync(path.parent)


def create_signing_key(path: Path) -> Ed25519PrivateKey:
    """Make a new Ed25519 key, stored as one line of hex.

    Raises:
        FileExistsError: There is a file already.
        OSError: The folder cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    write_new_secret(path, key.private_bytes_raw().hex().encode() + b"\n")
    return key


def load_signing_key(path: Path, *, what: str, cure: str) -> Ed25519PrivateKey:
    """Return the Ed25519 key stored in a file.

    Args:
        path: The file.
        what: What the key is, for the message: `the identity of this hospital`.
        cure: How to get one.

    Raises:
        ConfigError: The file is missing or holds no key.
    """
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text("ascii").strip()))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{what} cannot be read", where=str(path), why=type(error).__name__, cure=cure
        ) from None


def is_private(path: Path) -> bool:
    """Return whether only its owner may read or write an existing file or folder."""
    return path.stat().st_mode & OTHERS == 0
