"""Agree on the keys of secure sums: once per run, and again when a site joins or lost its keys."""

from __future__ import annotations

from common.errors import ErrorCode, PrivacyError, ProtocolError, RunError
from common.secure_sum.keys import KeyAdvert, SumContext
from common.secure_sum.messages import (
    AdvertiseReply,
    AdvertiseRequest,
    AgreeKeysReply,
    AgreeKeysRequest,
)
from common.secure_sum.server_rounds import SecureSumServer
from common.study.private_round import collusion_of, roster_of
from server.exchange.exchange import send
from server.exchange.secure_state import SecureState
from server.session.session import RunSession


def context_of(session: RunSession, number: int) -> SumContext:
    """Return what the keys of one agreement are for."""
    numbers = collusion_of(session.study)
    return SumContext(
        run_id=session.state.run_id,
        session=number,
        study_digest=session.state.study_digest,
        colluders=numbers.colluders,
        n_min=numbers.n_min,
    )


def restore(session: RunSession, state: SecureState) -> SecureSumServer:
    """Return the server's part for the keys in force, without asking anybody."""
    server = SecureSumServer(context_of(session, state.session), roster_of(session.study))
    server.agree(state.adverts)
    return server


def agree(session: RunSession, state: SecureState) -> tuple[SecureSumServer, SecureState]:
    """Collect fresh signed keys of all enrolled sites; `confirm` shows them to everybody.

    Returns:
        The server's part, and the state to store before anybody is shown the keys.

    Raises:
        RunError: Fewer than n_min sites take part.
    """
    number = state.session + 1
    adverts = _collect(session, number)
    n_min = collusion_of(session.study).n_min
    if len(adverts) < n_min:
        raise _too_few(session, f"{len(adverts)} sites sent keys, {n_min} are needed")
    server = SecureSumServer(context_of(session, number), roster_of(session.study))
    server.agree(list(adverts.values()))
    fresh = SecureState(session=number, adverts=list(adverts.values()), numbers=state.numbers)
    return server, fresh


def confirm(session: RunSession, server: SecureSumServer, state: SecureState) -> SecureState:
    """Show the keys to participants that have not confirmed them; return the new state."""
    participants = server.agree(state.adverts)
    missing = [name for name in participants.site_ids if name not in state.agreed]
    if not missing:
        return state
    request = AgreeKeysRequest(
        run_id=session.state.run_id, session=state.session, adverts=state.adverts
    )
    replies = send(session, "agree_keys", dict.fromkeys(missing, request))
    site_ids = [
        name
        for name, reply in replies.items()
        if isinstance(reply, AgreeKeysReply)
        and (reply.site_id, reply.session) == (name, state.session)
        and reply.participants_digest == participants.digest
    ]
    return state.model_copy(update={"agreed": sorted({*state.agreed, *site_ids})})


def _collect(session: RunSession, number: int) -> dict[str, KeyAdvert]:
    request = AdvertiseRequest(
        run_id=session.state.run_id, session=number, study_digest=session.state.study_digest
    )
    replies = send(session, "advertise_keys", dict.fromkeys(session.state.enrolled, request))
    adverts: dict[str, KeyAdvert] = {}
    for name in session.state.enrolled:
        reply = replies.get(name)
        if isinstance(reply, AdvertiseReply) and reply.advert.site_id == name:
            try:
                check = SecureSumServer(context_of(session, number), roster_of(session.study))
                check.agree([*adverts.values(), reply.advert])
            except ProtocolError as error:
                session.output.say(f"keys of {name} refused\n{error}")
                continue
            except PrivacyError:
                pass  # too few sites so far; judged again when all are there
            adverts[name] = reply.advert
    return adverts


def _too_few(session: RunSession, why: str) -> RunError:
    return RunError(
        "too few sites agreed on keys for the secure sum",
        where=session.state.run_id,
        why=why,
        cure="bring the sites back and run the same command again",
        code=ErrorCode.QUORUM,
    )
