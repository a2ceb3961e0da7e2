"""Makes the SuperLink know the node keys of the signed roster, and only those."""

from __future__ import annotations

import json
from pathlib import Path

from common.atomic_file import write_text
from server.consortium_folder import ConsortiumFolder
from server.flower_commands import list_nodes, register_node, unregister_node
from server.provision import audit_log

FILE = "nodes.json"


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
            ProtocolError: The roster was altered (ROSTER).
            RunError: The SuperLink cannot be reached (TRANSPORT).
        """
        roster = self._folder.roster()
        if roster.digest() == self._done_for:
            return
        known = list_nodes(self._folder)
        nodes = {key: node for key, node in registered_nodes(self._folder).items() if node in known}
        audit = audit_log(self._folder)
        admitted = {member.node_key: member.site_id for member in roster.admitted}
        for key, site_id in admitted.items():
            if key not in nodes:
                nodes[key] = register_node(self._folder, site_id, key)
                audit.append("node_registered", site=site_id, node=nodes[key])
        for key in sorted(set(nodes) - set(admitted)):
            unregister_node(self._folder, nodes[key])
            audit.append("node_unregistered", node=nodes.pop(key))
        write_text(_file(self._folder), json.dumps(nodes, indent=1, sort_keys=True))
        self._done_for = roster.digest()


def registered_nodes(folder: ConsortiumFolder) -> dict[str, str]:
    """Return node key -> Flower's node id, as last registered."""
    file = _file(folder)
    if not file.is_file():
        return {}
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _file(folder: ConsortiumFolder) -> Path:
    return folder.superlink / FILE
