"""Enrol sites by handshake, and record why any other site does not take part or is dropped."""

from collections.abc import Iterable

from common.contract import canonical_json
from common.errors import ErrorCode, ProtocolError, RunError
from common.protocol.protocol import HandshakeReply, HandshakeRequest
from common.trust.roster import SignedRoster
from common.trust.study_roster import objections
from common.wire import WireMessage
from server.session.run_state import SiteState
from server.session.session import RunSession
from server.session.site_link import Refusal

FINAL_REFUSALS = frozenset(
    {
        ErrorCode.STUDY_DIGEST,
        ErrorCode.CODE_DIGEST,
        ErrorCode.PLUGIN,
        ErrorCode.NOT_APPROVED,
        ErrorCode.POLICY,
        ErrorCode.BUDGET,
        ErrorCode.WEIGHTS_ORIGIN,
        ErrorCode.DATA,
        ErrorCode.ROSTER,
        ErrorCode.REVOKED,
        ErrorCode.FALSE_SHARES,
    }
)
"""Refusals that only a person can lift; such a site is not asked again in this session."""

REASONS: dict[str, str] = {
    ErrorCode.STUDY_DIGEST: "it read another study than the one announced",
    ErrorCode.CODE_DIGEST: "it runs another version of the code",
    ErrorCode.PLUGIN: "it lacks the code of another distribution that the study names, or has "
    "another version of it",
    ErrorCode.NOT_APPROVED: "it has not approved this study",
    ErrorCode.POLICY: "its own policy forbids this study",
    ErrorCode.BUDGET: "its privacy budget is too small for this study",
    ErrorCode.WEIGHTS_ORIGIN: "it does not accept where the study's weights come from",
    ErrorCode.DATA: "its cohort is too small or unusable",
    ErrorCode.MANIFEST: "its patient table has problems",
    ErrorCode.FEATURE: "one of its feature files is missing or damaged",
    ErrorCode.FEATURE_NOT_FINITE: "one of its features is not a number",
    ErrorCode.INTERNAL: "an unexpected error; see its own log",
    ErrorCode.PROTOCOL: "it speaks another version of the protocol",
    ErrorCode.LEDGER_DAMAGED: "its ledger is damaged",
    ErrorCode.LEDGER_ROLLBACK: "its ledger is older than the one last seen",
    ErrorCode.FEATURE_FINGERPRINT: "its features were made by another extractor",
    ErrorCode.ROSTER: "its roster differs, or the study names hospitals that its roster does not",
    ErrorCode.REVOKED: "it was revoked",
    ErrorCode.FALSE_SHARES: "its part of a secure sum contradicted itself, or was too long",
    ErrorCode.UNPROVEN: "a node without the registered key claims to be it",
    ErrorCode.BUNDLE: "its site gate refuses the bundle of this server",
    ErrorCode.AGENT_AWAY: "its node is online, but its site agent is not",
    ErrorCode.DISK_FULL: "its disk is full",
}


def expel(session: RunSession, site_ids: Iterable[str], what: str) -> None:
    """Put sites whose part of a secure sum cannot be honest out of the run; say what they did."""
    code = str(ErrorCode.FALSE_SHARES)
    for site_id in site_ids:
        session.record(session.state.with_site(site_id, enrolled=False, refusal_code=code))
        session.journal.write("site_expelled", round=session.state.round, site=site_id, code=code)
        session.output.say(f"site {site_id} {what}: the study goes on without it")


def enrol_all(session: RunSession) -> None:
    """Hand the study to every site of the roster and name each one that does not take part.

    Raises:
        RunError: Fewer sites than the quorum accept.
    """
    roster = [entry.site_id for entry in session.study.sites]
    by_name = [entry.site_id for entry in session.study.sites if entry.public_key is None]
    if by_name:
        session.output.say(
            f"accepted by name only, because the roster holds no key for: {', '.join(by_name)}"
        )
    drop_revoked(session)
    quorum, out = session.study.quorum, session.state.revoked | session.state.expelled
    site_ids = [site_id for site_id in roster if site_id not in out]
    _handshake(session, site_ids, quorum.round_timeout_s, needed=quorum.min_sites)
    for site_id in roster:
        site = session.state.sites[site_id]
        if not site.enrolled:
            session.output.say(f"site {site_id} does not take part: {reason(site.refusal_code)}")
    quorum_size = session.study.quorum.min_sites
    if len(session.state.enrolled) < quorum_size:
        reasons = "; ".join(
            f"{site_id}: {reason(session.state.sites[site_id].refusal_code)}"
            for site_id in roster
            if not session.state.sites[site_id].enrolled
        )
        raise RunError(
            f"only {len(session.state.enrolled)} of at least {quorum_size} sites accept the study",
            where=session.state.run_id,
            why=reasons,
            cure="fix what the sites report and run the same command again",
            code=ErrorCode.QUORUM,
        )


def enrol_returned(session: RunSession) -> None:
    """Hand the study to sites that were silent or lost their run, and can be reached now.

    When a hospital was revoked since the last round, all others are handed the new roster with
    the study, so that they too refuse it from this round on.

    Raises:
        ProtocolError: The coordinator's roster was altered before this process had seen it
            (ROSTER).
    """
    newly_revoked = drop_revoked(session)
    to_inform = session.state.enrolled if newly_revoked else ()
    roster = {entry.site_id for entry in session.study.sites}
    waiting = [
        site_id
        for site_id in session.link.site_ids()
        if site_id in roster
        and site_id not in session.state.enrolled
        and session.state.sites[site_id].refusal_code not in FINAL_REFUSALS
    ]
    if waiting or to_inform:
        _handshake(session, [*to_inform, *waiting], session.study.quorum.round_timeout_s)


def reason(code: str | None) -> str:
    """Return a refusal code in words."""
    if code is None:
        return "it did not answer"
    return f"{REASONS.get(code, 'it refused')} ({code})"


def _handshake(
    session: RunSession, site_ids: Iterable[str], deadline_s: float, *, needed: int = 0
) -> None:
    roster = roster_of_run(session)
    base = HandshakeRequest(
        run_id=session.state.run_id,
        study_json=canonical_json(session.study.model_dump(mode="json")),
        study_digest=session.state.study_digest,
        code_digest=session.state.code_digest,
        roster_json=roster.text() if roster is not None else None,
    )
    state = session.state
    sites = list(site_ids)
    heads = {site_id: state.sites.get(site_id, SiteState()).ledger_head for site_id in sites}
    requests = {s: base.model_copy(update={"ledger_head": head}) for s, head in heads.items()}
    replies = session.link.exchange("handshake", requests, deadline_s=deadline_s, needed=needed)
    for site_id in sites:
        reply = replies.get(site_id)
        if isinstance(reply, HandshakeReply) and _agrees(reply, site_id, base):
            state = state.with_site(
                site_id,
                enrolled=True,
                refusal_code=None,
                modalities=reply.modalities,
                release=reply.release,
                ledger_head=reply.ledger_head,
            )
            session.journal.write("enrolled", site=site_id, release=reply.release)
        else:
            code = _code(reply)
            state = state.with_site(site_id, enrolled=False, refusal_code=code)
            session.journal.write("not_enrolled", site=site_id, code=code or "")
    session.record(state)


def _agrees(reply: HandshakeReply, site_id: str, request: HandshakeRequest) -> bool:
    return (
        reply.accepted
        and reply.site_id == site_id
        and reply.study_digest == request.study_digest
        and reply.code_digest == request.code_digest
    )


def _code(reply: WireMessage | Refusal | None) -> str | None:
    if reply is None:
        return None
    if isinstance(reply, Refusal):
        return reply.code
    if isinstance(reply, HandshakeReply) and reply.refusal_code:
        return own_code(reply.refusal_code)
    return str(ProtocolError.default_code)


def own_code(code: str) -> str:
    """Return `code` if it is one of ours, else the code for an internal error.

    A site's text is never shown or stored as it came.
    """
    return code if code in set(ErrorCode) else str(ErrorCode.INTERNAL)


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
