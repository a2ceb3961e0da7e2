"""Partition the participants of a secure sum into the random groups of one round.

Whoever sees only one sum of all cannot tell which hospital lies in it. So a study may ask for
several sums a round, each over a group, and combine them by a rule that withstands a false one.
Nobody chooses the groups: they follow from the number of the round and the digest of all signed
keys, which are fresh, contain the run, and are the same at every hospital that can unmask
anything. Each hospital computes its own group, masks its answer for that group alone, and answers
no list of survivors with a stranger to it.
"""

from common.contract import sha256_hex
from common.privacy.collusion import threshold
from common.privacy.plan import FEWEST_GROUPS
from common.secure_sum.keys import Groups, Participants, refused
from common.study.private_round import training_collusion_of
from common.study.study import Study


def groups_of_study(study: Study) -> Groups | None:
    """Return the numbers of a study's groups; None where one sum is over all.

    Raises:
        PrivacyError: The numbers do not work.
    """
    if study.privacy.groups == 1:
        return None
    numbers = training_collusion_of(study)
    return Groups(count=study.privacy.groups, colluders=numbers.colluders, n_min=numbers.n_min)


def groups_of(participants: Participants, number: int) -> list[Participants]:
    """Return the groups of one round, as even in size as can be, in the order of a public draw.

    There are as many as the context says, or fewer if participants are missing: none is smaller
    than n_min, or so large that n_min is below its threshold. Each is a secure sum of its own, with
    t, n_min and a digest of its own.

    Args:
        participants: All sites that agreed on keys.
        number: Number of the sum.

    Raises:
        ProtocolError: Too few sites for three groups, or the context has no groups.
    """
    context, everybody = participants.context, participants.adverts
    count = _count(len(everybody), context.groups) if context.groups else 0
    if context.groups is None or count == 0:
        raise refused(f"{len(everybody)} sites do not fill {FEWEST_GROUPS} groups")
    own = {**context.groups.model_dump(include={"colluders", "n_min"}), "groups": None}
    order = sorted(
        everybody, key=lambda a: sha256_hex(f"{participants.digest}|{number}|{a.site_id}")
    )
    drawn = (sorted(order[place::count], key=lambda a: a.site_id) for place in range(count))
    return [Participants(context.model_copy(update=own), tuple(group)) for group in drawn]


def _count(n_sites: int, plan: Groups) -> int:
    """Return how many groups so many sites fill; 0 if fewer than three."""
    for count in range(min(plan.count, n_sites // plan.n_min), FEWEST_GROUPS - 1, -1):
        if threshold(-(-n_sites // count), plan.colluders) <= plan.n_min:
            return count
    return 0


def group_with(participants: Participants, number: int, site_id: str) -> Participants:
    """Return the group of one participant in one round; see `groups_of`."""
    return next(g for g in groups_of(participants, number) if site_id in g.site_ids)
