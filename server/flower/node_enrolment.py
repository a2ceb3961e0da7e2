"""Makes the SuperLink know the node keys of the signed roster, and only those.

What it knows is read from its own database: a note of ours would be wrong after a kill between
registration and note, or after one of both was restored from a backup.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from common.errors import ErrorCode, RunError
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import audit_log
from server.consortium.provision_roster import present_roster
from server.flower.flower_commands import register_node, unregister_node

_NODES = "SELECT node_id, public_key FROM node WHERE status != 'unregistered'"
"""Flower keeps the keys as PEM, and its unsigned node ids as signed integers."""


class NodeEnrolment:
    """Registers admitted nodes and takes revoked ones back, whenever the roster changes.

    Args:
        folder: The coordinator's folder.
    """

    def __init__(self, folder: ConsortiumFolder) -> None:
        self._folder = folder
        self._done_for: str | None = None

    def update(self) -> None:
        """Bring the SuperLink up to the roster; does nothing if the roster has not changed.

        Raises:
            ProtocolError: The roster was altered, or is older than one seen before (ROSTER).
            RunError: The SuperLink cannot be reached (TRANSPORT).
        """
        if self._folder.roster().digest() == self._done_for:
            return
        roster, nodes = present_roster(self._folder), registered_nodes(self._folder)
        audit = audit_log(self._folder)
        admitted = {member.node_key: member.site_id for member in roster.admitted}
        for key in sorted(set(nodes) - set(admitted)):
            unregister_node(self._folder, nodes[key])
            audit.append("node_unregistered", node=nodes[key])
        for key, site_id in admitted.items():
            if key not in nodes:
                node = register_node(self._folder, site_id, key)
                audit.append("node_registered", site=site_id, node=node)
        self._done_for = roster.digest()


def registered_nodes(folder: ConsortiumFolder) -> dict[str, str]:
    """Return node key (OpenSSH format) -> Flower's node id, as the SuperLink knows them.

    This leans on a table of Flower; Flower is pinned, and a test drives the real one.

    Raises:
        RunError: The database cannot be read (TRANSPORT).
    """
    if not folder.database.is_file():
        return {}
    try:
        address = f"{folder.database.as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=10.0)) as database:
            rows = database.execute(_NODES).fetchall()
        return {_openssh(key): str(number % (1 << 64)) for number, key in rows}
    except (sqlite3.Error, ValueError) as error:
        raise RunError(
            "the SuperLink's database cannot be read",
            where=str(folder.database),
            why=str(error),
            cure="if it is damaged, move it away: hospitals are registered anew from the roster",
            code=ErrorCode.TRANSPORT,
        ) from None


def _openssh(pem: bytes) -> str:
    key = load_pem_public_key(pem)
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
