"""Train one round at a hospital; the ledger reserves the budget first."""

import logging

import numpy as np

from client.agent.local_rounds import train_locally
from client.agent.open_run import OpenRun
from client.agent.release import Release
from client.agent.spending import Spending, private_round_entry
from client.training.private_gradient import clipped_gradient_sum
from client.training.private_steps import train_private_steps
from common.errors import DataError, ErrorCode, ProtocolError
from common.models.base.parameters import block_of, load_arrays
from common.privacy.clipping import GradientSum
from common.privacy.integer_encoding import Int64, IntegerEncoding, flatten
from common.privacy.sum_norm import capped
from common.protocol.protocol import TrainReply, TrainRequest
from common.study.federated_method import stays_local
from common.study.private_round import encoding_of
from common.wire import Arrays, arrays_digest

_log = logging.getLogger(__name__)


def check_request(run: OpenRun, request: TrainRequest) -> None:
    """Refuse a round outside the plan or a model that is not what its digest says.

    Raises:
        ProtocolError: The round is beyond the plan, or the digest does not agree (PAYLOAD).
    """
    rounds = run.study.training.rounds
    if request.round > rounds:
        raise ProtocolError(
            f"round {request.round} is beyond the {rounds} rounds of the plan",
            where=run.run_id,
        )
    check_model_digest(request.arrays, request.model_digest)


def check_model_digest(arrays: Arrays, digest: str) -> None:
    """Refuse arrays that are not what their digest says.

    Raises:
        ProtocolError: With code PAYLOAD.
    """
    if arrays_digest(arrays) != digest:
        raise ProtocolError(
            "the model is not the one its digest names",
            why="a reply is stored under the digest, and sent again for it",
            code=ErrorCode.PAYLOAD,
        )


def train(run: OpenRun, request: TrainRequest, release: Release, spending: Spending) -> TrainReply:
    """Return what this hospital contributes to one round.

    Raises:
        ProtocolError: The model does not fit the study, or no keys were agreed on (SECURE_SUM).
        DataError: There is no training patient, or the loss is not finite; mode none.
        PrivacyError: The noise does not fit the model.
        BudgetError: The ledger refuses.
    """
    if run.study.privacy.is_private:
        return _train_privately(run, request, release, spending)
    return _train_openly(run, request, spending)


def _train_openly(run: OpenRun, request: TrainRequest, spending: Spending) -> TrainReply:
    """Return a plain update with its true patient counts; mode none."""
    spending.note_open_training(run.study, run.run_id)
    steps = None
    if run.study.training.local.kind == "epochs":
        result = train_locally(run, request)
        arrays, weights, loss = result.delta, result.weights, result.loss
        kind = "delta"
        steps = result.steps if run.study.training.local.control_variates else None
    else:
        load_arrays(run.model, request.arrays)
        total = clipped_gradient_sum(run.model, run.train, run.study, device=run.device, clip=None)
        arrays = _finite(total)
        weights, loss = run.block_weights, total.loss
        kind = "gradient_sum"
    blocks = sorted(block for block, weight in weights.items() if weight > 0)
    return TrainReply.model_validate(
        {
            **_identity(run, request),
            "kind": kind,
            "weights": {block: weights[block] for block in blocks},
            "loss": loss if np.isfinite(loss) else None,
            "blocks": blocks,
            "steps": steps,
        }
    ).model_copy(update={"arrays": _of_blocks(_leaving(run, arrays), blocks)})


def _train_privately(
    run: OpenRun, request: TrainRequest, release: Release, spending: Spending
) -> TrainReply:
    """Return a clipped gradient sum, or a delta of such steps, with this hospital's noise.

    The spend is reserved before a patient is read. The sum is rounded to a grid and Skellam
    noise with multiplier sigma is added, sqrt(releases) / sigma = mu, mu from (epsilon, delta)
    in closed form (Dong, Roth and Su, 2022); `common.privacy.integer_encoding` and, for local
    epochs, `client.training.private_steps` have the details.
    The reply is stored before the spend is committed, so that the same request is always
    answered with the same bytes.
    """
    load_arrays(run.model, request.arrays)
    shapes = run.shapes if release.all_blocks else run.own_shapes
    encoding = encoding_of(run.study, shapes)
    session = release.session(request)  # refuses before anything is spent
    reservation = spending.reserve(private_round_entry(run.study, request, encoding))
    mark = release.mark(request, spending.position, spending.head)
    if run.study.training.local.kind == "epochs":
        kind, arrays = "delta", _noised_steps(run, encoding, shapes)
    else:
        longest = release.longest_sum(run.study, run.site_id)
        noised = _noised_sum(run, encoding, shapes, request.round, longest)
        kind, arrays = release.gradient_sum(request, noised, encoding, shapes)
    reply = TrainReply.model_validate(
        {
            **_identity(run, request),
            "kind": kind,
            "blocks": sorted({block_of(n) for n in arrays if n in shapes}),  # none if masked
            "session": session,
            "ledger_mark": mark,
            "ledger_head": spending.head,
            "epsilon_spent": spending.training_epsilon(run.study),
        }
    ).model_copy(update={"arrays": arrays})
    return spending.seal_and_commit(reservation, request, reply)


def _noised_sum(
    run: OpenRun,
    encoding: IntegerEncoding,
    shapes: dict[str, tuple[int, ...]],
    number: int,
    longest: float,
) -> Int64:
    total = clipped_gradient_sum(
        run.model, run.train, run.study, device=run.device, clip=encoding.clip
    )
    if total.n_nonfinite:
        _log.warning("round %d: %d gradients not finite", number, total.n_nonfinite)
    vector = flatten({name: total.arrays[name] for name in shapes})
    return encoding.noised(capped(vector, longest))


def _noised_steps(
    run: OpenRun, encoding: IntegerEncoding, shapes: dict[str, tuple[int, ...]]
) -> Arrays:
    return train_private_steps(
        run.model,
        run.train,
        run.study,
        encoding=encoding,
        shapes=shapes,
        nominal_patients=run.study.nominal_by_site[run.site_id],
        device=run.device,
    )


def _identity(run: OpenRun, request: TrainRequest) -> dict[str, object]:
    return {
        "site_id": run.site_id,
        "run_id": run.run_id,
        "round": request.round,
        "model_digest": request.model_digest,
    }


def _of_blocks(arrays: Arrays, blocks: list[str]) -> Arrays:
    return {n: a.astype(np.float32) for n, a in arrays.items() if block_of(n) in blocks}


def _leaving(run: OpenRun, arrays: Arrays) -> Arrays:
    """Return what may leave: all but the parameters every site keeps for itself."""
    local_patterns = run.study.training.stay_local
    return {n: a for n, a in arrays.items() if not stays_local(n, local_patterns)}


def _finite(total: GradientSum) -> Arrays:
    if total.n_nonfinite:
        raise DataError(
            f"{total.n_nonfinite} patients have a gradient that is not finite",
            why="their features lie far outside the public scale, or the model diverged",
            cure="set scaling.clip of the features, or lower the learning rate",
            code=ErrorCode.NOT_FINITE,
        )
    return dict(total.arrays)
