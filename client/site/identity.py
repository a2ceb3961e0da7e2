"""Keep the hospital's two keys, whose private halves never leave it.

- identity: Ed25519, signs its keys of the secure sum, its request to join and its audit log;
- node key: P-384 in OpenSSH format, with which its SuperNode authenticates to the SuperLink.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.trust.secret_file import create_signing_key, load_signing_key, write_new_secret
from common.trust.signature import public_half


def create_identity(path: Path) -> str:
    """Make a new identity, readable by its owner alone, and return its public key in hex.

    Raises:
        ConfigError: There is one already; it is never overwritten.
    """
    try:
        return public_half(create_signing_key(path))
    except FileExistsError:
        raise _taken("an identity", path) from None


def load_identity(path: Path) -> Ed25519PrivateKey:
    """Return the hospital's identity.

    Raises:
        ConfigError: The file is missing or holds no key.
    """
    return load_signing_key(
        path,
        what="the identity of this hospital",
        cure="make one with `tumorboard site keygen`, or restore it from backup",
    )


def public_key(identity: Ed25519PrivateKey) -> str:
    """Return the public half in hex, as it is in the roster."""
    return public_half(identity)


def node_key_path(identity_key: Path) -> Path:
    """Return where the node key lies: `node.key` beside the identity."""
    return identity_key.with_name("node.key")


def create_node_key(path: Path) -> str:
    """Make a new node key, readable by its owner alone, and return its public key.

    The public half is also written beside it, as `<name>.pub`.

    Raises:
        ConfigError: There is one already; it is never overwritten.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    try:
        write_new_secret(path, private)
    except FileExistsError:
        raise _taken("a node key", path) from None
    public = node_public_key(key)
    write_text(path.with_name(f"{path.name}.pub"), f"{public}\n")
    return public


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key of this hospital's SuperNode.

    Raises:
        ConfigError: The file is missing or holds no P-384 key.
    """
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(path, type(error).__name__) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp384r1":
        raise _unusable(path, "it is not a P-384 key")
    return key


def node_public_key(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half of a node key in OpenSSH format, as it is in the roster."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        "the node key of this hospital cannot be read",
        where=str(path),
        why=why,
        cure="make one with `tumorboard site keygen`, or restore it from backup",
    )


def _taken(what: str, path: Path) -> ConfigError:
    return ConfigError(
        f"this hospital already has {what}",
        where=str(path),
        why="a new one would not be the one on the roster",
        cure="keep it; to replace it, move the file away and request admission again",
    )
