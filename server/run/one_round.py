"""Run one round of training or of evaluation: collect from the sites, aggregate, step.

What is collected, each site's own reply or only the sum of all, is the exchange's business.
"""

import time
from collections.abc import Mapping, Sequence

from common.errors import ErrorCode, RunError
from common.metrics.summaries.paired import Comparison, compare_within_sites
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.evaluation_request import join_pair
from common.protocol.protocol import EvaluateRequest, TrainRequest
from common.wire import Arrays, arrays_digest, joint_norm
from server.aggregate.contribution import Contribution
from server.aggregate.cosine_monitor import PATIENCE, divergent_sites
from server.aggregate.group_history import steering_sites
from server.aggregate.method import aggregate, control_of
from server.exchange.exchange import Collected, Exchange, in_words
from server.exchange.validate_reply import ExpectedTables, ExpectedUpdate
from server.run.evaluation import (
    Evaluation,
    digest_of_models,
    evaluation_of,
    load_evaluation,
    paired_request,
    refined_request,
    store_evaluation,
)
from server.session.checkpoint import VOID, Checkpoint, RoundRecord, advance, load_checkpoint
from server.session.session import RunSession

MAX_VOID_ROUNDS = 3
"""Number of void rounds in a row that end the run; each has cost its spend."""


def last_checkpoint(session: RunSession) -> Checkpoint:
    """Return the last committed round; before the first, the model that the study begins with.

    Raises:
        RunError: The checkpoint is damaged.
    """
    checkpoint = load_checkpoint(session.checkpoints)
    return checkpoint or Checkpoint(round=0, parameters=to_arrays(build_model(session.study)))


def train_round(session: RunSession, exchange: Exchange, checkpoint: Checkpoint) -> Checkpoint:
    """Return the next checkpoint, not yet saved; a void round leaves the model as it was.

    Raises:
        RunError: Too few sites answer, or too many rounds in a row were void.
    """
    start_time = time.monotonic()
    session.enter(phase="round")
    study, model = session.study, checkpoint.parameters
    shapes = {name: array.shape for name, array in model.items()}
    request = _train_request(session, checkpoint)
    everybody = dict.fromkeys((entry.site_id for entry in study.sites), request)
    replies = exchange.collect(everybody, ExpectedUpdate(study, shapes, joint_norm(model)))
    _check_streak(session, checkpoint.history, replies)
    aggregation = aggregate(study, model, replies.contributions, checkpoint.memory)
    record = RoundRecord(
        round=request.round,
        attempts=replies.attempts,
        sites=replies.sites,
        dropped=replies.dropped,
        loss=_mean_loss(replies.contributions),
        update_norm=0.0,
        seconds=round(time.monotonic() - start_time, 3),
        facts={VOID: replies.void} if replies.void else aggregation.facts,
    )
    _warn_of_divergent_sites(session, checkpoint.history, record)
    _warn_of_steering_sites(session, checkpoint.history, record)
    return advance(study, checkpoint, aggregation.direction, record, aggregation.memory)


def evaluate(
    session: RunSession,
    exchange: Exchange,
    models: Mapping[str, Arrays],
    request: EvaluateRequest,
) -> Evaluation:
    """Ask sites for the tables of models, phase by phase, or return what an earlier call stored.

    Args:
        session: An open run whose sites are enrolled.
        exchange: How the run collects.
        models: Site -> the model it evaluates, or pair of models; one shared mapping if all
            evaluate the same.
        request: The first phase, without a model.

    Raises:
        RunError: Too few sites send tables in every attempt.
    """
    of_model = {id(a): {"arrays": a, "model_digest": arrays_digest(a)} for a in models.values()}
    digests = {site: str(of_model[id(a)]["model_digest"]) for site, a in models.items()}
    digest, folder = digest_of_models(digests), session.run_dir / "evaluation" / request.label
    earlier = load_evaluation(session.study, folder, digest)
    if earlier is not None:
        return earlier
    while True:
        # Margins are stored, too: other cuts than those that sites have answered are refused.
        place = folder / "margins" if request.phase == "margins" else folder
        evaluation = load_evaluation(session.study, place, digest)
        if evaluation is None:
            shared = {key: request.model_copy(update=update) for key, update in of_model.items()}
            requests = {s: shared[id(models[s])] for s in session.state.enrolled if s in models}
            replies = exchange.collect(requests, ExpectedTables(session.study, request))
            evaluation = evaluation_of(session.study, request, replies)
            store_evaluation(place, request, evaluation, digest)
        if request.phase != "margins":
            return evaluation
        request = refined_request(session.study, evaluation, request)


def compare_models(
    session: RunSession,
    exchange: Exchange,
    shared: tuple[Evaluation, Mapping[str, Arrays]],
    personal: tuple[Evaluation, Mapping[str, Arrays]],
) -> dict[str, Comparison]:
    """Return personal minus shared model on the same held-out patients, by headline metric.

    Both were evaluated before, so their score cuts are known; the sites cross-tabulate both
    scores with the outcome. Scores of personal models have no common scale, so differences are
    taken inside each site. Exact tables only: under release `dp` there is no comparison, and no
    pretence of one from two intervals.

    Args:
        session: An open run whose sites are enrolled.
        exchange: How the run collects.
        shared: Evaluation of the shared model, and that model by site.
        personal: Evaluation of every site's personal model, and the model it starts from.

    Raises:
        RunError: Too few sites send tables in every attempt.
    """
    if shared[0].grid.release != "internal":
        return {}
    pairs = {
        site: join_pair(shared[1][site], personal[1][site])
        for site in session.state.enrolled
        if site in shared[1] and site in personal[1]
    }
    request = paired_request(session, shared[0], personal[0])
    evaluation = evaluate(session, exchange, pairs, request)
    return compare_within_sites(evaluation.tables, evaluation.grid)


def _train_request(session: RunSession, checkpoint: Checkpoint) -> TrainRequest:
    arrays, last_counted = dict(checkpoint.parameters), {}
    if session.study.training.local.control_variates:
        arrays |= control_of(checkpoint.memory)
        last_counted = {site: r.round for r in checkpoint.history for site in r.sites}
    return TrainRequest(
        run_id=session.state.run_id,
        round=checkpoint.round + 1,
        model_digest=arrays_digest(arrays),
        counted=last_counted,
        arrays=arrays,
    )


def _mean_loss(contributions: Sequence[Contribution]) -> float | None:
    """Return the patient-weighted mean loss; None where no site sends one."""
    pairs = [
        (c.loss, max(c.weights.values(), default=0.0)) for c in contributions if c.loss is not None
    ]
    total = sum(weight for _, weight in pairs)
    return sum(loss * weight for loss, weight in pairs) / total if total > 0 else None


def _check_streak(session: RunSession, history: Sequence[RoundRecord], replies: Collected) -> None:
    recent = [VOID in record.facts for record in history[1 - MAX_VOID_ROUNDS :]]
    if replies.void and len(recent) == MAX_VOID_ROUNDS - 1 and all(recent):
        raise RunError(
            f"{MAX_VOID_ROUNDS} rounds in a row were void",
            where=session.state.run_id,
            why=f"{replies.void}; {in_words(replies.dropped)}",
            cure="bring the sites back and run the same command again",
            code=ErrorCode.QUORUM,
        )


def _warn_of_divergent_sites(
    session: RunSession, history: Sequence[RoundRecord], record: RoundRecord
) -> None:
    """Warn once about each site whose updates, summed over the rounds, oppose the others'."""
    if record.round < PATIENCE:
        return
    named_before = divergent_sites(history[-1].facts) if record.round > PATIENCE else set()
    for site_id in sorted(divergent_sites(record.facts) - named_before):
        session.output.say(
            f"round {record.round}: the updates of {site_id}, summed over the rounds, oppose "
            "those of all other sites. Ask how it codes outcomes and features, and look "
            "at the model without it; `aggregation.rule: centred_clipping` limits what it can do"
        )


def _warn_of_steering_sites(
    session: RunSession, history: Sequence[RoundRecord], record: RoundRecord
) -> None:
    """Name each site that pulls the sums of its groups away, when it was not named before."""
    named_before = {site for earlier in history for site in steering_sites(earlier.facts)}
    for site_id in sorted(steering_sites(record.facts) - named_before):
        session.journal.write("site_steers", round=record.round, site=site_id)
        session.output.say(
            f"round {record.round}: sums with {site_id} in them are pulled away from all others, "
            "and are left out. Ask how it codes outcomes and features; `tumorboard server revoke` "
            "puts it out"
        )
