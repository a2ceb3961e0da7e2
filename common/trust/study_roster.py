"""Compare the hospitals that a study names with the consortium's roster.

Coordinator and hospitals ask the same question. In a secure sum every other hospital of the study
may be one whom this one's patients are hidden among, so a name that nobody admitted is refused by
whoever reads the study.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from common.study.study import RosterEntry
from common.trust.roster import Roster

Objection = Literal["is not admitted", "is revoked", "has another key there"]
"""What is wrong with a hospital of a study; reads on from its name."""


def objections(roster: Roster, sites: Iterable[RosterEntry]) -> dict[str, Objection]:
    """Return hospital -> what is wrong with it; empty if all are admitted with these keys.

    A hospital that was revoked and came back with new keys is revoked for a study that names the
    old ones.
    """
    reasons = {entry.site_id: _objection(roster, entry) for entry in sites}
    return {site_id: wrong for site_id, wrong in reasons.items() if wrong is not None}


def in_words(wrong: Mapping[str, Objection]) -> str:
    """Return all objections as one line, by name."""
    return "; ".join(f"{site_id} {objection}" for site_id, objection in sorted(wrong.items()))


def _objection(roster: Roster, entry: RosterEntry) -> Objection | None:
    members = [member for member in roster.members if member.site_id == entry.site_id]
    if not members:
        return "is not admitted"
    same = [member for member in members if member.identity == entry.public_key]
    if same:
        return None if same[0].status == "admitted" else "is revoked"
    is_admitted = any(member.status == "admitted" for member in members)
    return "has another key there" if is_admitted else "is revoked"
