"""Create a hospital's keys and its request to join a consortium."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.site.identity import (
    create_identity,
    create_node_key,
    load_identity,
    load_node_key,
    node_key_path,
    node_public_key,
    public_key,
)
from common.errors import ConfigError
from common.study.site_policy import SitePolicy
from common.trust.join_request import JoinRequest, SignedJoinRequest


@dataclass(frozen=True)
class PublicKeys:
    """Public halves of a hospital's keys.

    Attributes:
        identity: Ed25519, hex.
        node_key: P-384, OpenSSH format.
    """

    identity: str
    node_key: str


def make_keys(policy: SitePolicy) -> PublicKeys:
    """Make the keys a hospital lacks and return the public halves of both.

    Raises:
        ConfigError: It has both already, one is damaged, or the folder cannot be written.
    """
    identity, node = policy.identity_key, node_key_path(policy.identity_key)
    try:
        if identity.exists() and not node.exists():
            load_identity(identity)
        else:
            create_identity(identity)
        create_node_key(node)
    except OSError as error:
        raise ConfigError(
            "the keys cannot be written",
            where=str(identity.parent),
            why=str(error),
            cure="choose another path for identity_key in site.yaml, or ask for permission",
        ) from None
    return public_keys(policy)


def public_keys(policy: SitePolicy) -> PublicKeys:
    """Return the public halves of the hospital's keys.

    Where the node key belongs to the user that faces the network, as in the shipped compose
    file, its public half is read from the file beside it.

    Raises:
        ConfigError: One is missing or damaged.
    """
    path = node_key_path(policy.identity_key)
    beside = path.with_name(f"{path.name}.pub")
    if path.exists() and not os.access(path, os.R_OK) and os.access(beside, os.R_OK):
        node = beside.read_text(encoding="utf-8").strip()
    else:
        node = node_public_key(load_node_key(path))
    return PublicKeys(public_key(load_identity(policy.identity_key)), node)


def write_request(policy: SitePolicy, name: str, out: Path) -> JoinRequest:
    """Write the signed request to join and return what it says.

    Raises:
        ConfigError: A key is missing, or the file cannot be written.
    """
    identity = load_identity(policy.identity_key)
    node = load_node_key(node_key_path(policy.identity_key))
    request = JoinRequest(
        site_id=policy.site_id,
        name=name,
        identity=public_key(identity),
        node_key=node_public_key(node),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        SignedJoinRequest.make(request, identity, node).write(out)
    except OSError as error:
        raise ConfigError(
            "the request cannot be written", where=str(out), why=str(error), cure="change --out"
        ) from None
    return request
