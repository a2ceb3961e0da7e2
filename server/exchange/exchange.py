"""Ask sites for updates or tables: one interface for all privacy modes, and what they share."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from common.errors import ErrorCode, ProtocolError
from common.protocol.protocol import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
from common.wire import WireMessage
from server.aggregate.contribution import Contribution
from server.exchange.enrolment import FINAL_REFUSALS, own_code
from server.exchange.validate_reply import Expected, refused
from server.session.checkpoint import SILENT
from server.session.session import RunSession
from server.session.site_link import Refusal

Request = TrainRequest | EvaluateRequest
Reply = TrainReply | EvaluateReply

MAX_ATTEMPTS = 3
"""How often sites are requested one thing."""

_HEX64 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Collected:
    """What the sites contribute to one round of training, or to one phase of an evaluation.

    Attributes:
        contributions: One per site; under a secure sum the one sum of all. Empty if void.
        sites: Sites whose part is in it, sorted.
        dropped: Site -> code, or `silent`, of the others.
        attempts: How often sites were asked.
        shares: Whole noises in the sum of all contributions; None: one per site.
        void: Why the sum of this round could not be opened; empty if it could.
    """

    contributions: list[Contribution]
    sites: list[str]
    dropped: dict[str, str] = field(default_factory=dict)
    attempts: int = 1
    shares: float | None = None
    void: str = ""


class Exchange(Protocol):
    """Collects what sites contribute; chosen once per run, by the study's privacy mode."""

    def collect(self, requests: Mapping[str, Request], expected: Expected) -> Collected:
        """Ask enrolled sites and return what they contribute.

        Args:
            requests: Site -> request; all of one round, or of one phase of an evaluation. Sites
                that come back in time are asked too, if they are named here.
            expected: The form of an answer.

        Raises:
            RunError: Too few sites answer (QUORUM).
        """
        ...


def send(
    session: RunSession, method: str, requests: Mapping[str, WireMessage]
) -> dict[str, WireMessage | Refusal]:
    """Send requests, wait as the study's quorum says, and return what came back."""
    return session.link.exchange(
        method,
        requests,
        deadline_s=session.study.quorum.round_timeout_s,
        optional=session.away,
        needed=session.needed_of(list(requests)),
    )


def ask(
    session: RunSession, requests: Mapping[str, Request], check: Callable[[Any, str], None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Ask sites once; return the valid replies, and why each other site has none.

    Args:
        session: The run; what replies say of a site's budget is noted in its state.
        requests: Site -> request.
        check: Raises `ProtocolError` for a reply, with its site, that is not of the right form.
    """
    training = isinstance(next(iter(requests.values()), None), TrainRequest)
    replies = send(session, "train" if training else "evaluate", requests)
    valid: dict[str, Any] = {}
    dropped: dict[str, str] = {}
    for site_id, request in requests.items():
        reply = replies.get(site_id)
        if reply is None:
            session.note_silence(site_id)
            dropped[site_id] = SILENT
            continue
        session.note_answer(site_id)
        if not isinstance(reply, TrainReply if training else EvaluateReply):
            dropped[site_id] = _note_refusal(session, site_id, reply, training=training)
            continue
        try:
            check_identity(reply, site_id, request)
            check(reply, site_id)
            valid[site_id] = reply
        except ProtocolError as error:
            dropped[site_id] = _note_invalid(session, site_id, request, error)
    _note_budgets(session, valid)
    return valid, dropped


def check_identity(reply: Reply, site_id: str, request: Request) -> None:
    """Accept that a reply answers this request, and that what it says of budgets can be.

    Raises:
        ProtocolError: Site, run, round or model differ, or (PAYLOAD) facts are impossible.
    """
    identity = (reply.site_id, reply.run_id, reply.round, reply.model_digest)
    if identity != (site_id, request.run_id, request.round, request.model_digest):
        raise ProtocolError(
            "the reply does not answer this request",
            where=site_id,
            why="site, run, round or model digest differ",
        )
    if reply.ledger_head is not None and not _HEX64.match(reply.ledger_head):
        raise refused(site_id, "the ledger head is not a SHA-256")
    evaluation_epsilon = reply.evaluation_epsilon_spent if isinstance(reply, EvaluateReply) else 0.0
    if not (0 <= reply.epsilon_spent <= 1e6 and 0 <= evaluation_epsilon <= 1e6):
        raise refused(site_id, "the spent epsilon is impossible")


def title(request: Request) -> str:
    """Return what a request belongs to, for messages."""
    if isinstance(request, TrainRequest):
        return f"round {request.round}"
    return f"evaluation of model '{request.label}'"


def in_words(dropped: Mapping[str, str]) -> str:
    """Return who is missing, and why, for messages."""
    return ", ".join(f"{site}: {code}" for site, code in sorted(dropped.items()))


def _note_refusal(session: RunSession, site_id: str, reply: object, *, training: bool) -> str:
    """Return the code of a refusal or of a reply of another type, and act on it.

    In training a refusal that only a person can lift ends the site's part; a site that lost its
    run is handed the study again before the next round.
    """
    code = own_code(reply.code) if isinstance(reply, Refusal) else str(ErrorCode.PROTOCOL)
    session.journal.write("site_refused", site=site_id, code=code)
    if training and code in FINAL_REFUSALS:
        session.record(session.state.with_site(site_id, enrolled=False, refusal_code=code))
    elif training and code == ErrorCode.PROTOCOL:
        session.record(session.state.with_site(site_id, enrolled=False))
    return code


def _note_invalid(session: RunSession, site_id: str, request: Request, error: ProtocolError) -> str:
    session.output.say(f"{title(request)}: reply of {site_id} refused\n{error}")
    event = "update_refused" if isinstance(request, TrainRequest) else "tables_refused"
    session.journal.write(event, round=request.round, site=site_id, code=str(error.code))
    return str(error.code)


def _note_budgets(session: RunSession, replies: Mapping[str, Reply]) -> None:
    state = session.state
    for site_id, reply in replies.items():
        changes = {"epsilon_spent": reply.epsilon_spent, "ledger_head": reply.ledger_head}
        if isinstance(reply, TrainReply):
            state = state.with_site(site_id, last_round=reply.round, **changes)
        else:
            evaluation = reply.evaluation_epsilon_spent
            state = state.with_site(
                site_id, evaluation_epsilon_spent=evaluation, cohort=reply.cohort, **changes
            )
    session.record(state)
