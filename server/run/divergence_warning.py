"""Tells the coordinator, once, of a site that pulls against all others."""

from __future__ import annotations

from server.aggregate.cosine_monitor import AGAINST, PATIENCE
from server.session.checkpoint import Checkpoint, RoundRecord
from server.session.session import RunSession


def warn_of_sites_against_the_rest(
    session: RunSession, checkpoint: Checkpoint, record: RoundRecord
) -> None:
    """Say which sites fell below the limit in this round, after the first few rounds.

    Args:
        session: Shows the warning; the site goes on taking part.
        checkpoint: The last committed round, to warn of a site only once.
        record: The round that was just aggregated.
    """
    if record.round < PATIENCE:
        return
    known = against_the_rest(checkpoint.history[-1]) if record.round > PATIENCE else set()
    for site_id in sorted(against_the_rest(record) - known):
        session.output.say(
            f"round {record.round}: the updates of {site_id}, summed over the rounds, point "
            "against those of all other sites. Ask how it codes outcomes and features, and look "
            "at the model without it; `aggregation.rule: centred_clipping` limits what it can do"
        )


def against_the_rest(record: RoundRecord) -> set[str]:
    """Return the sites whose cumulative cosine with the rest is below the limit."""
    cosines = record.facts.get("cosine_with_rest")
    if not isinstance(cosines, dict):
        return set()
    return {s for s, cosine in cosines.items() if isinstance(cosine, float) and cosine < AGAINST}
