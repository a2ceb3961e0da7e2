"""Register the node keys of the signed roster, and no others, with the SuperLink.

What it knows is asked of the SuperLink itself: a note of ours would be wrong after a kill between
registration and note, or after one of both was restored from a backup.
"""

from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import audit_log
from server.consortium.provision_roster import present_roster
from server.flower.flower_commands import register_node, registered_nodes, unregister_node


class NodeEnrolment:
    """Registers admitted nodes and takes revoked ones back, whenever the roster changes."""

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
        site_of = {member.node_key: member.site_id for member in roster.admitted}
        for key in sorted(set(nodes) - set(site_of)):
            unregister_node(self._folder, nodes[key])
            audit.append("node_unregistered", node=nodes[key])
        for key, site_id in site_of.items():
            if key not in nodes:
                node = register_node(self._folder, site_id, key)
                audit.append("node_registered", site=site_id, node=node)
        self._done_for = roster.digest()
