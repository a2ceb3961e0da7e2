"""Drop hospitals that are revoked while a study runs; the run continues without them."""

from __future__ import annotations

from common.errors import ErrorCode, ProtocolError
from common.trust.roster import SignedRoster
from common.trust.study_roster import objections
from server.session.run_state import SiteState
from server.session.session import RunSession


def drop_revoked(session: RunSession) -> list[str]:
    """Take hospitals that were revoked since the last look out of the run; return their names.

    Their node is put out by `tumorboard server up`; here nobody waits for it any more, and no
    keys of a secure sum are agreed on with it.

    Raises:
        ProtocolError: The coordinator's roster was altered before this process had seen it
            (ROSTER).
    """
    signed = roster_of_run(session)
    if signed is None:
        return []
    roster = signed.roster
    wrong = objections(roster, session.study.sites)
    state, newly_revoked = session.state, []
    for site_id, objection in sorted(wrong.items()):
        if objection != "is revoked" or state.sites.get(site_id, SiteState()).is_revoked:
            continue
        newly_revoked.append(site_id)
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
    return newly_revoked


def roster_of_run(session: RunSession) -> SignedRoster | None:
    """Return the coordinator's roster; None in a simulation.

    Whoever can write the coordinator's file must not be able to end a study: an altered or older
    one is noted in the audit log, and the run continues with the last good one.

    Raises:
        ProtocolError: It was altered, and there is no good one yet (ROSTER).
    """
    if session.consortium is None:
        return None
    try:
        current = session.consortium.signed_roster()
    except ProtocolError:
        if session.roster is None:
            raise
        current = None
    last_good = session.roster
    if current is not None and (
        last_good is None or current.roster.version >= last_good.roster.version
    ):
        session.roster, session.roster_refused = current, False
    elif not session.roster_refused:
        session.roster_refused = True
        session.journal.write(
            "roster_refused", round=session.state.round, code=str(ErrorCode.ROSTER)
        )
        session.output.say("the roster was altered: the study goes on with the last good one")
    return session.roster
