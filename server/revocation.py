"""Hospitals that are revoked while a study runs: it goes on without them, and says so."""

from __future__ import annotations

from common.errors import ErrorCode
from common.study_roster import objections
from server.run_state import SiteState
from server.session import RunSession


def drop_revoked(session: RunSession) -> list[str]:
    """Take hospitals that were revoked since the last look out of the run; return their names.

    Their node is put out by `tumorboard server up`; here nobody waits for it any more, and no
    keys of a secure sum are agreed on with it.

    Raises:
        ProtocolError: The coordinator's roster was altered (ROSTER).
    """
    if session.consortium is None:
        return []
    roster = session.consortium.roster()
    wrong = objections(roster, session.study.sites)
    state, gone = session.state, []
    for site_id, objection in sorted(wrong.items()):
        if objection != "is revoked" or state.sites.get(site_id, SiteState()).is_revoked:
            continue
        gone.append(site_id)
        code = str(ErrorCode.REVOKED)
        state = state.with_site(site_id, enrolled=False, refusal_code=code)
        session.journal.write(
            "site_revoked",
            round=state.round,
            site=site_id,
            code=code,
            roster_version=roster.version,
        )
        session.output.say(f"site {site_id} was revoked: the study goes on without it")
    session.record(state)
    return gone
