"""What a reply must be before it may touch the global model.

Stock averaging accepts NaN, infinities, 1e30 and a weight of 1e12. Here every reply is checked
for identity (site, run, round, model), declared keys, shapes, dtype, finiteness, norm and
weights; what fails is dropped with a stable code and the round goes on without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import ErrorCode, ProtocolError
from common.models.base.parameters import block_of
from common.protocol.protocol import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
from common.study.federated_method import stays_local
from common.study.modalities import MODALITIES, Modality
from common.study.study import Study
from common.wire import Arrays, joint_norm

MAX_BLOCK_PATIENTS = 1e6
"""No hospital trains on more patients; a larger weight would decide the average alone."""

MAX_DELTA_RATIO = 100.0
"""A delta longer than this many times (1 + norm of the global model) is not a training step."""

MAX_GRADIENT_PER_PATIENT = 1e4
"""Bound on an unclipped per-patient gradient (mode none only)."""

NOMINAL_SLACK = 10.0
"""How much larger than the public nominal count a cohort may be."""

ANNOUNCED_SLACK = 2.0
"""How much larger than announced in the roster a site's cohort may be."""

NOISE_SPREADS = 8.0
"""Standard deviations of the norm of the noise that a private reply may exceed its mean by."""

_HEX64 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class RoundExpectation:
    """What the server asked for.

    Attributes:
        study: The study of the run.
        request: The request all sites got.
        shapes: Shape of every trained parameter.
        model_norm: L2 norm of the global model.
        noise_sd: Standard deviation of one coordinate of a site's own noise; 0 in mode none.
    """

    study: Study
    request: TrainRequest
    shapes: Mapping[str, tuple[int, ...]]
    model_norm: float
    noise_sd: float

    @property
    def kind(self) -> str:
        """The declared kind of the update."""
        return "gradient_sum" if self.study.training.local.kind == "gradient_sum" else "delta"


def check_train_reply(
    reply: TrainReply, site_id: str, modalities: Sequence[Modality], expected: RoundExpectation
) -> None:
    """Accept the update of one site, or refuse it.

    Args:
        reply: The decoded reply.
        site_id: The site the request was sent to.
        modalities: What the site declared in the handshake.
        expected: What was asked for.

    Raises:
        ProtocolError: With code PROTOCOL (identity), PAYLOAD (form, norm, weight) or NOT_FINITE.
    """
    asked = expected.request
    _check_identity(
        site_id,
        (reply.site_id, reply.run_id, reply.round, reply.model_digest),
        (asked.run_id, asked.round, asked.model_digest),
    )
    if reply.kind != expected.kind:
        raise _payload(site_id, f"the update is of kind {reply.kind}, not {expected.kind}")
    _check_ledger_facts(site_id, reply.ledger_head, reply.epsilon_spent)
    _check_blocks(reply, site_id, modalities, expected)
    _check_arrays(site_id, reply.arrays, expected.shapes)
    _check_norm(reply, site_id, expected)
    _check_weights(reply, site_id, expected)
    if (reply.steps is None) == expected.study.training.local.control_variates:
        raise _payload(site_id, "the number of steps is missing, or was not asked for")


def check_masked_reply(
    reply: TrainReply, site_id: str, asked: TrainRequest, key_session: int
) -> None:
    """Accept the identity of a masked upload; its arrays are checked where they are added up.

    Raises:
        ProtocolError: It answers another request, tells counts or a loss, or is masked under
            other keys (SECURE_SUM).
    """
    _check_identity(
        site_id,
        (reply.site_id, reply.run_id, reply.round, reply.model_digest),
        (asked.run_id, asked.round, asked.model_digest),
    )
    _check_ledger_facts(site_id, reply.ledger_head, reply.epsilon_spent)
    if reply.kind != "masked" or reply.weights or reply.loss is not None:
        raise _payload(site_id, "the update is not a masked upload alone")
    if reply.session != key_session:
        raise ProtocolError(
            "the upload is masked under other keys", where=site_id, code=ErrorCode.SECURE_SUM
        )


def check_evaluate_reply(reply: EvaluateReply, site_id: str, asked: EvaluateRequest) -> None:
    """Accept the identity and form of an evaluation reply; its tables are checked on reading.

    Raises:
        ProtocolError: The reply is another site's or another request's, or not int64.
    """
    check_evaluate_identity(reply, site_id, asked)
    if not reply.arrays:
        raise _payload(site_id, "the reply holds no table")
    if any(array.dtype != np.int64 for array in reply.arrays.values()):
        raise _payload(site_id, "a table is not int64")


def check_evaluate_identity(reply: EvaluateReply, site_id: str, asked: EvaluateRequest) -> None:
    """Accept that a reply answers this evaluation request.

    Raises:
        ProtocolError: It is another site's or another request's, or tells impossible facts.
    """
    _check_identity(
        site_id,
        (reply.site_id, reply.run_id, reply.round, reply.model_digest),
        (asked.run_id, asked.round, asked.model_digest),
    )
    if (reply.label, reply.release, reply.phase) != (asked.label, asked.release, asked.phase):
        raise ProtocolError("the tables are not the ones asked for", where=site_id)
    _check_ledger_facts(site_id, reply.ledger_head, reply.epsilon_spent)
    _check_ledger_facts(site_id, None, reply.evaluation_epsilon_spent)
    if reply.cohort is not None and asked.release != "internal":
        raise _payload(site_id, "exact counts came with a release that has none")


def _payload(site_id: str, what: str) -> ProtocolError:
    return ProtocolError(what, where=site_id, code=ErrorCode.PAYLOAD)


def _check_identity(
    site_id: str, told: tuple[str, str, int, str], asked: tuple[str, int, str]
) -> None:
    if told != (site_id, *asked):
        raise ProtocolError(
            "the reply does not answer this request",
            where=site_id,
            why="site, run, round or model digest differ",
        )


def _check_ledger_facts(site_id: str, head: str | None, epsilon: float) -> None:
    if head is not None and not _HEX64.match(head):
        raise _payload(site_id, "the ledger head is not a SHA-256")
    if not 0 <= epsilon <= 1e6:
        raise _payload(site_id, "the spent epsilon is impossible")


def _check_blocks(
    reply: TrainReply, site_id: str, modalities: Sequence[Modality], expected: RoundExpectation
) -> None:
    absent = set(MODALITIES) - set(modalities)
    unknown = set(reply.blocks) - {block_of(name) for name in expected.shapes}
    if unknown or absent & set(reply.blocks) or len(set(reply.blocks)) != len(reply.blocks):
        raise _payload(site_id, "the update names blocks that the site does not have")
    kept = tuple(expected.study.training.stay_local)
    due = {
        name
        for name in expected.shapes
        if block_of(name) in reply.blocks and not stays_local(name, kept)
    }
    if not due or set(reply.arrays) != due:
        raise _payload(site_id, "parameters are missing or unknown")


def _check_arrays(site_id: str, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise _payload(site_id, f"{name} has shape {array.shape}, not {shapes[name]}")
        if array.dtype != np.float32:
            raise _payload(site_id, f"{name} is {array.dtype}, not float32")
        if not np.isfinite(array).all():
            raise ProtocolError(
                f"{name} holds values that are not finite",
                where=site_id,
                code=ErrorCode.NOT_FINITE,
            )


def norm_bound(n_coordinates: int, site_id: str, expected: RoundExpectation) -> float:
    """Return the longest update an honest site can send.

    A private sum has norm <= clip * patients plus noise, whose norm concentrates around
    sd * sqrt(d) with a spread below sd (chi distribution): a mean over n patients may be as long
    as C + sigma C sqrt(d) / n.
    """
    study = expected.study
    if expected.kind == "delta":
        return MAX_DELTA_RATIO * (1 + expected.model_norm)
    nominal = study.training.nominal_patients
    if study.privacy.mode == "none":
        return MAX_GRADIENT_PER_PATIENT * nominal
    noise = expected.noise_sd * (math.sqrt(n_coordinates) + NOISE_SPREADS)
    return study.privacy.clip * most_patients(study, site_id) + noise


def most_patients(study: Study, site_id: str) -> float:
    """Return the largest training cohort that the server believes of a site.

    Up to twice what the site announced in the roster; without that, up to ten times the nominal
    count of all sites together.
    """
    announced = {site.site_id: site.nominal_patients for site in study.sites}.get(site_id)
    if announced is not None:
        return ANNOUNCED_SLACK * announced
    return NOMINAL_SLACK * study.training.nominal_patients


def _check_norm(reply: TrainReply, site_id: str, expected: RoundExpectation) -> None:
    norm = joint_norm(reply.arrays)
    bound = norm_bound(sum(a.size for a in reply.arrays.values()), site_id, expected)
    if norm > bound:
        raise _payload(site_id, f"the update has norm {norm:.3g}, at most {bound:.3g} is possible")


def _check_weights(reply: TrainReply, site_id: str, expected: RoundExpectation) -> None:
    private = expected.study.privacy.is_private
    if private and (reply.weights or reply.loss is not None):
        raise _payload(site_id, "a private update tells counts or a loss")
    due = set(reply.blocks) if expected.kind == "delta" else set()
    if not private and not due <= set(reply.weights) <= set(reply.blocks):
        raise _payload(site_id, "block weights are missing or unknown")
    if any(not 0 <= weight <= MAX_BLOCK_PATIENTS for weight in reply.weights.values()):
        raise _payload(site_id, f"a weight is negative or above {MAX_BLOCK_PATIENTS:.0f} patients")
