"""Register which Flower node speaks for which site.

A node is believed when the site's registered identity has signed the challenge that this node,
and no other, was sent. Only a site without a key on the roster, possible in the modes `none`
and `local`, is believed by name; enrolment says so.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from common.errors import ErrorCode
from common.protocol.protocol import StatusReply
from common.trust.site_proof import is_proven, new_challenge

ASK_AGAIN_S = 10.0
"""Pause before a node that gave no proof is asked again, with another challenge."""


@dataclass
class _Node:
    """A node that is, or was, online."""

    site_id: str | None = None
    challenge: str | None = None
    not_before: float = 0.0
    refused: ErrorCode | None = None
    claim: str = ""


class NodeRegistry:
    """Knows the site behind each node.

    The first live node that proves to be a site keeps it until it is offline.

    Args:
        roster: Site -> registered identity (hex), or None where the roster has no key.
    """

    def __init__(self, roster: Mapping[str, str | None]) -> None:
        self._roster = dict(roster)
        self._nodes: dict[int, _Node] = {}
        self._live: frozenset[int] = frozenset()
        self._holder: dict[str, int] = {}

    def see(self, online: Collection[int], now: float) -> list[int]:
        """Note who is online; return the nodes to ask who they are, sorted."""
        self._live = frozenset(online)
        unknown = []
        for number in sorted(online):
            node = self._nodes.setdefault(number, _Node())
            if node.site_id is None and now >= node.not_before:
                node.not_before = now + ASK_AGAIN_S
                unknown.append(number)
        return unknown

    def challenge(self, number: int) -> str:
        """Return a fresh challenge for a node; it replaces an earlier one."""
        self._nodes[number].challenge = challenge = new_challenge()
        return challenge

    def hear(
        self, number: int, status: StatusReply | None, *, instead: ErrorCode = ErrorCode.AGENT_AWAY
    ) -> ErrorCode | None:
        """Take a node's answer to its challenge; a challenge counts once.

        A node that fails to prove what it proved before loses its site.

        Args:
            number: The node that answered.
            status: What it said; None if its agent said nothing.
            instead: Why it said nothing.

        Returns:
            Why the node is not believed; None if it is, or if nothing has changed.
        """
        node = self._nodes[number]
        challenge, node.challenge = node.challenge, None
        code = self._judge(number, challenge, status) if status is not None else instead
        if code == ErrorCode.UNPROVEN and node.site_id is not None:
            self._holder.pop(node.site_id, None)
            node.site_id = None
        node.claim = status.site_id if status is not None else ""
        news = code if code != node.refused else None
        node.refused = code
        return news

    def node_of(self, site_id: str) -> int | None:
        """Return the live node of a site, or None."""
        number = self._holder.get(site_id)
        return number if number in self._live else None

    def was_seen(self, site_id: str) -> bool:
        """Return whether any node has ever spoken for the site."""
        return site_id in self._holder

    def is_disputed(self, site_id: str) -> bool:
        """Return whether a live node claims the site without proof, and no other has it."""
        claims = (n for n in self._live if self._nodes[n].claim == site_id)
        unproven = any(self._nodes[n].refused == ErrorCode.UNPROVEN for n in claims)
        return unproven and self.node_of(site_id) is None

    @property
    def live_sites(self) -> tuple[str, ...]:
        """Sites whose node is online, sorted."""
        return tuple(sorted(s for s, number in self._holder.items() if number in self._live))

    def _judge(self, number: int, challenge: str | None, status: StatusReply) -> ErrorCode | None:
        site_id = status.site_id
        if site_id not in self._roster:
            return ErrorCode.UNPROVEN
        key = self._roster[site_id]
        if key is not None and (
            challenge is None or not is_proven(key, site_id, challenge, status.proof)
        ):
            return ErrorCode.UNPROVEN
        holder = self._holder.get(site_id)
        if holder is not None and holder != number and holder in self._live:
            return ErrorCode.UNPROVEN
        if holder is not None and holder != number:
            self._nodes[holder].site_id = None
        self._holder[site_id] = number
        self._nodes[number].site_id = site_id
        return None
