"""Store secret keys on disk: readable only by their owner, and never overwritten."""

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import ConfigError
from common.storage.atomic_file import remove, sync, write_bytes

OTHERS = 0o077
"""Permission bits that let anybody but the owner at a file."""


def write_new_secret(path: Path, data: bytes) -> None:
    """Write a secret to a new file with permissions 0600, and force it to disk.

    The file is written under another name and linked, so that of two processes only the first
    succeeds, and nobody ever reads a part of it.

    Raises:
        FileExistsError: There is a file already; it is left as it is.
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    whole = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_bytes(whole, data, mode=0o600)
        os.link(whole, path)
    finally:
        remove(whole)
    sync(path.parent)


def fresh_secret(path: Path) -> Path:
    """Write 32 random bytes that only their owner may read, in place of any before; return path."""
    write_bytes(path, secrets.token_bytes(32), mode=0o600)
    return path


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
