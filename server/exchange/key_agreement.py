"""Agree on the keys of secure sums: once per run, and again when a site joins or lost its keys."""

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from common.contract import Contract
from common.errors import ErrorCode, PrivacyError, ProtocolError, RunError
from common.secure_sum.groups import groups_of_study
from common.secure_sum.keys import KeyAdvert, SumContext
from common.secure_sum.messages import (
    AdvertiseReply,
    AdvertiseRequest,
    AgreeKeysReply,
    AgreeKeysRequest,
)
from common.secure_sum.server_rounds import SecureSumServer
from common.storage.atomic_file import write_text
from common.study.private_round import collusion_of, roster_of
from server.exchange.exchange import send
from server.session.session import RunSession

STATE_FILE = "secure_sums.json"


class ClosedUploads(Contract):
    """The one list of survivors that sites received for a sum."""

    number: int
    survivors: list[str]


class SecureState(Contract):
    """Keys in force and the sums they were used for; holds no secret.

    Attributes:
        session: Number of the key agreement; 0 before the first.
        adverts: Signed public keys of its participants.
        agreed: Participants that confirmed them.
        closed: Last list of survivors that was sent.
        numbers: Name of an evaluation -> number of its secure sum.
        refused: Survivors of each sum so far that was too long to be honest.
    """

    session: int = Field(default=0, ge=0)
    adverts: list[KeyAdvert] = Field(default_factory=list)
    agreed: list[str] = Field(default_factory=list)
    closed: ClosedUploads | None = None
    numbers: dict[str, int] = Field(default_factory=dict)
    refused: list[list[str]] = Field(default_factory=list)

    @classmethod
    def load(cls, run_dir: Path) -> Self:
        """Return the stored state, or an empty one.

        Raises:
            RunError: The file is damaged.
        """
        path = run_dir / STATE_FILE
        if not path.is_file():
            return cls()
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError):
            raise RunError(
                "the record of the secure sums cannot be read",
                where=str(path),
                cure="restore it from a backup, or start again in an empty folder",
            ) from None

    def save(self, run_dir: Path) -> None:
        """Write the state durably."""
        write_text(run_dir / STATE_FILE, self.model_dump_json(indent=1))


def context_of(session: RunSession, number: int) -> SumContext:
    """Return what the keys of one agreement are for."""
    numbers = collusion_of(session.study)
    return SumContext(
        run_id=session.state.run_id,
        session=number,
        study_digest=session.state.study_digest,
        colluders=numbers.colluders,
        n_min=numbers.n_min,
        groups=groups_of_study(session.study),
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
        RunError: Fewer sites take part than the sums need.
    """
    number = state.session + 1
    adverts = _collect(session, number)
    n_min = context_of(session, number).fewest
    if len(adverts) < n_min:
        raise RunError(
            "too few sites agreed on keys for the secure sum",
            where=session.state.run_id,
            why=(f"{len(adverts)} sites sent keys, {n_min} are needed"),
            cure="bring the sites back and run the same command again",
            code=ErrorCode.QUORUM,
        )
    server = SecureSumServer(context_of(session, number), roster_of(session.study))
    server.agree(list(adverts.values()))
    changes = {"session": number, "adverts": list(adverts.values()), "agreed": [], "closed": None}
    fresh = state.model_copy(update=changes)
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
