"""One round: broadcast, collect within the deadline, validate, aggregate, step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import ErrorCode, ProtocolError, RunError
from common.protocol.protocol import TrainReply, TrainRequest, model_part
from common.study.private_round import sigma_of
from common.study.study import Study
from common.wire import Arrays, joint_norm
from server.aggregate.contribution import Contribution
from server.aggregate.method import Aggregated, aggregate
from server.aggregate.optimizers import apply_direction
from server.exchange.enrolment import FINAL_REFUSALS, enrol_returned, known_code
from server.exchange.validate_reply import RoundExpectation, check_train_reply
from server.run.divergence_warning import warn_of_sites_against_the_rest
from server.run.round_request import asked_sites, train_request
from server.session.checkpoint import SILENT, Checkpoint, RoundRecord
from server.session.session import RunSession
from server.session.site_link import Refusal

MAX_ATTEMPTS = 3
"""How often a round is tried before the run fails."""


@dataclass
class Collected:
    """What came back in one attempt at a round.

    Attributes:
        sites: Sites whose updates count, sorted.
        aggregated: What their updates come to.
        dropped: Site -> code, or `silent`.
        loss: Patient-weighted mean loss; mode none only.
    """

    sites: list[str]
    aggregated: Aggregated
    dropped: dict[str, str]
    loss: float | None


def noise_sd(study: Study) -> float:
    """Return the noise one site adds to a coordinate in mode local, 0 in mode none."""
    if study.privacy.mode != "local":
        return 0.0
    return study.privacy.clip * sigma_of(study)


def run_round(session: RunSession, checkpoint: Checkpoint) -> Checkpoint:
    """Return the next checkpoint, not yet saved.

    Raises:
        RunError: Too few usable replies in every attempt.
    """
    started = time.monotonic()
    number = checkpoint.round + 1
    session.enter(phase="round")
    request = train_request(session, checkpoint)
    cyclic = session.study.training.schedule == "cyclic"
    needed = 1 if cyclic else session.study.quorum.min_sites
    for attempt in range(1, MAX_ATTEMPTS + 1):
        enrol_returned(session)
        collected = collect(session, request, asked_sites(session, number, attempt), checkpoint)
        if len(collected.sites) >= needed:
            record = RoundRecord(
                round=number,
                attempts=attempt,
                sites=collected.sites,
                dropped=collected.dropped,
                loss=collected.loss,
                update_norm=0.0,
                seconds=round(time.monotonic() - started, 3),
                facts=collected.aggregated.facts,
            )
            warn_of_sites_against_the_rest(session, checkpoint, record)
            following = advance(session.study, checkpoint, collected.aggregated.direction, record)
            following.memory = collected.aggregated.memory
            return following
        session.output.say(
            f"round {number}, attempt {attempt}: {len(collected.sites)} usable replies, "
            f"{needed} needed {collected.dropped}"
        )
    raise RunError(
        f"round {number} found too few sites in {MAX_ATTEMPTS} attempts",
        where=session.state.run_id,
        why=", ".join(f"{site}: {code}" for site, code in sorted(collected.dropped.items())),
        cure="bring the sites back and run the same command again: it continues at this round",
        code=ErrorCode.QUORUM,
    )


def collect(
    session: RunSession, request: TrainRequest, asked: Sequence[str], checkpoint: Checkpoint
) -> Collected:
    """Ask these sites once; return the valid updates, aggregated to a direction."""
    model = model_part(request.arrays)
    expected = RoundExpectation(
        study=session.study,
        request=request,
        shapes={name: array.shape for name, array in model.items()},
        model_norm=joint_norm(model),
        noise_sd=noise_sd(session.study),
    )
    replies = session.link.exchange(
        "train",
        dict.fromkeys(asked, request),
        deadline_s=session.study.quorum.round_timeout_s,
        optional=session.away,
        needed=session.needed_of(asked),
    )
    valid: list[TrainReply] = []
    dropped: dict[str, str] = {}
    for site_id in asked:
        reply = replies.get(site_id)
        code = _check(session, site_id, reply, expected)
        if code is not None:
            dropped[site_id] = code
        elif isinstance(reply, TrainReply):
            valid.append(reply)
    _remember(session, valid)
    updates = [_contribution(reply) for reply in valid]
    aggregated = aggregate(session.study, model, updates, checkpoint.memory)
    return Collected(sorted(r.site_id for r in valid), aggregated, dropped, _mean_loss(valid))


def note_absence(session: RunSession, site_id: str) -> str:
    """Note that a site was silent in this round; return what stands in its record."""
    session.not_heard(site_id)
    return SILENT


def note_reply(session: RunSession, site_id: str, reply: object) -> str:
    """Return the code of a refusal or of a reply of another type, and act on it.

    A refusal that only a person can lift ends the site's part; a site that lost its run is
    handed the study again before the next round.
    """
    code = known_code(reply.code) if isinstance(reply, Refusal) else str(ErrorCode.PROTOCOL)
    session.journal.write("site_refused", site=site_id, code=code)
    if code in FINAL_REFUSALS:
        session.record(session.state.with_site(site_id, enrolled=False, refusal_code=code))
    elif code == ErrorCode.PROTOCOL:
        session.record(session.state.with_site(site_id, enrolled=False))
    return code


def _check(
    session: RunSession, site_id: str, reply: object, expected: RoundExpectation
) -> str | None:
    if reply is None:
        return note_absence(session, site_id)
    session.heard(site_id)
    if not isinstance(reply, TrainReply):
        return note_reply(session, site_id, reply)
    try:
        check_train_reply(reply, site_id, session.state.sites[site_id].modalities, expected)
    except ProtocolError as error:
        session.output.say(f"round {expected.request.round}: update of {site_id} refused\n{error}")
        session.journal.write(
            "update_refused", round=expected.request.round, site=site_id, code=str(error.code)
        )
        return str(error.code)
    return None


def _contribution(reply: TrainReply) -> Contribution:
    return Contribution(reply.site_id, reply.arrays, reply.weights, reply.steps or 1)


def _mean_loss(replies: Sequence[TrainReply]) -> float | None:
    pairs = [(r.loss, max(r.weights.values(), default=0.0)) for r in replies if r.loss is not None]
    total = sum(weight for _, weight in pairs)
    if total <= 0:
        return None
    return sum(loss * weight for loss, weight in pairs) / total


def _remember(session: RunSession, replies: Sequence[TrainReply]) -> None:
    state = session.state
    for reply in replies:
        state = state.with_site(
            reply.site_id,
            epsilon_spent=reply.epsilon_spent,
            ledger_head=reply.ledger_head,
            last_round=reply.round,
        )
    session.state = state  # written with the next change of phase or commit


def advance(
    study: Study, checkpoint: Checkpoint, direction: Arrays, record: RoundRecord
) -> Checkpoint:
    """Return the checkpoint after one step of the server optimiser; not yet saved."""
    optimizer = checkpoint.optimizer
    moved = apply_direction(checkpoint.parameters, direction, study.training.server, optimizer)
    change = {name: moved[name] - checkpoint.parameters[name] for name in moved}
    record = record.model_copy(update={"update_norm": joint_norm(change)})
    following = Checkpoint(
        round=record.round,
        parameters=moved,
        optimizer=optimizer,
        average=checkpoint.average,
        averaged=checkpoint.averaged,
        history=[*checkpoint.history, record],
        memory=checkpoint.memory,
    )
    add_to_average(following, study)
    return following


def add_to_average(checkpoint: Checkpoint, study: Study) -> None:
    """Add this round's iterate to the running sum if it is among the last `average_last`."""
    rounds = study.training.rounds
    counted = max(1, round(rounds * study.training.average_last))
    if checkpoint.round <= rounds - counted:
        return
    checkpoint.average = {
        name: value.astype("float64") + checkpoint.average.get(name, 0.0)
        for name, value in checkpoint.parameters.items()
    }
    checkpoint.averaged += 1


def final_model(checkpoint: Checkpoint) -> Arrays:
    """Return the mean of the last iterates, float32."""
    if checkpoint.averaged <= 1:
        return checkpoint.parameters
    return {
        name: (total / checkpoint.averaged).astype("float32")
        for name, total in checkpoint.average.items()
    }
