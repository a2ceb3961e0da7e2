"""Every kind of reply that must not touch the global model is refused with its code."""

import math

import numpy as np
import pytest
from tiny_consortium import tiny_study

from common.cohort.cohort_counts import CohortCounts
from common.errors import ErrorCode, ProtocolError
from common.protocol.protocol import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
from common.study.private_round import sigma_of
from common.wire import arrays_digest, joint_norm
from server.exchange.exchange import check_identity
from server.exchange.validate_reply import (
    ExpectedTables,
    ExpectedUpdate,
)

MODEL = {
    "heads.b": np.zeros(3, np.float32),
    "pathology.w": np.zeros((4, 3), np.float32),
    "radiology.w": np.zeros((2, 3), np.float32),
}
EPOCHS = {"rounds": 5, "local": {"kind": "epochs"}, "server": {"name": "average"}}


def expectation(mode="none"):
    study = tiny_study(
        training=EPOCHS if mode == "none" else {"rounds": 5, "nominal_patients": 90},
        privacy={"mode": mode},
    )
    return ExpectedUpdate(study, {name: a.shape for name, a in MODEL.items()}, model_norm=1.0)


def reply(mode="none", **changes):
    facts = {
        "site_id": "site-c",
        "run_id": "run-1",
        "round": 2,
        "model_digest": arrays_digest(MODEL),
        "kind": "delta" if mode == "none" else "gradient_sum",
        "blocks": ["heads", "pathology"],
        "weights": {"heads": 20.0, "pathology": 12.0} if mode == "none" else {},
    }
    arrays = changes.pop("arrays", {})
    good = {n: np.full_like(a, 0.5) for n, a in MODEL.items() if not n.startswith("radiology")}
    return TrainReply.model_validate(facts | changes).model_copy(
        update={"arrays": {n: a for n, a in (good | arrays).items() if a is not None}}
    )


def check(mode="none", **changes):
    request = TrainRequest(run_id="run-1", round=2, model_digest=arrays_digest(MODEL), arrays=MODEL)
    check_identity(reply(mode, **changes), "site-c", request)
    expectation(mode).check(reply(mode, **changes), "site-c", ["pathology", "clinical"])


@pytest.mark.parametrize("mode", ["none", "local"])
def test_honest_reply_passes(mode):
    check(mode)


def poisoned(value):
    array = np.zeros((4, 3), np.float32)
    array[1, 1] = value
    return {"pathology.w": array}


BAD = {
    "another site": ({"site_id": "site-a"}, ErrorCode.PROTOCOL),
    "another run": ({"run_id": "run-2"}, ErrorCode.PROTOCOL),
    "another round": ({"round": 3}, ErrorCode.PROTOCOL),
    "another model": ({"model_digest": "0" * 64}, ErrorCode.PROTOCOL),
    "another kind": ({"kind": "gradient_sum"}, ErrorCode.PAYLOAD),
    "missing parameter": ({"arrays": {"pathology.w": None}}, ErrorCode.PAYLOAD),
    "unknown parameter": ({"arrays": {"heads.x": np.zeros(1, np.float32)}}, ErrorCode.PAYLOAD),
    "no block": ({"blocks": [], "weights": {}, "arrays": dict.fromkeys(MODEL)}, ErrorCode.PAYLOAD),
    "block twice": ({"blocks": ["heads", "heads", "pathology"]}, ErrorCode.PAYLOAD),
    "undeclared modality": (
        {
            "blocks": ["heads", "pathology", "radiology"],
            "weights": {"heads": 1.0, "pathology": 1.0, "radiology": 1.0},
            "arrays": {"radiology.w": np.zeros((2, 3), np.float32)},
        },
        ErrorCode.PAYLOAD,
    ),
    "wrong shape": ({"arrays": {"pathology.w": np.zeros((3, 4), np.float32)}}, ErrorCode.PAYLOAD),
    "broadcastable shape": ({"arrays": {"heads.b": np.zeros(1, np.float32)}}, ErrorCode.PAYLOAD),
    "float64": ({"arrays": {"heads.b": np.zeros(3)}}, ErrorCode.PAYLOAD),
    "integers": ({"arrays": {"heads.b": np.zeros(3, np.int64)}}, ErrorCode.PAYLOAD),
    "not a number": ({"arrays": poisoned(np.nan)}, ErrorCode.NOT_FINITE),
    "infinite": ({"arrays": poisoned(np.inf)}, ErrorCode.NOT_FINITE),
    "norm 1e9": ({"arrays": poisoned(1e9)}, ErrorCode.PAYLOAD),
    "norm 1e30": ({"arrays": poisoned(1e30)}, ErrorCode.PAYLOAD),
    "weight 1e12": ({"weights": {"heads": 1e12, "pathology": 1.0}}, ErrorCode.PAYLOAD),
    "negative weight": ({"weights": {"heads": -15.0, "pathology": 1.0}}, ErrorCode.PAYLOAD),
    "weight missing": ({"weights": {"heads": 20.0}}, ErrorCode.PAYLOAD),
    "weight of another block": (
        {"weights": {"heads": 20.0, "pathology": 1.0, "fusion": 1.0}},
        ErrorCode.PAYLOAD,
    ),
    "false ledger head": ({"ledger_head": "patient Smith"}, ErrorCode.PAYLOAD),
    "negative spend": ({"epsilon_spent": -1.0}, ErrorCode.PAYLOAD),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_reply_is_refused(kind):
    changes, code = BAD[kind]
    with pytest.raises(ProtocolError) as caught:
        check(**{k: dict(v) if isinstance(v, dict) else v for k, v in changes.items()})
    assert caught.value.code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"heads": 20.0}},
        {"loss": 0.5},
        {"arrays": {"pathology.w": np.full((4, 3), 1e6, np.float32)}},
        {"kind": "delta"},
    ],
    ids=["true counts", "a loss", "longer than clip and noise allow", "a delta"],
)
def test_private_reply_that_tells_too_much_is_refused(changes):
    with pytest.raises(ProtocolError) as caught:
        check("local", **changes)
    assert caught.value.code == ErrorCode.PAYLOAD


def test_message_cannot_carry_a_number_that_is_not_finite():
    with pytest.raises(ProtocolError):
        TrainReply.decode('{"weights": {"heads": NaN}}', b"")


def test_private_update_may_be_as_long_as_clip_times_patients_plus_noise():
    # a mean over n patients may be as long as C + sigma C sqrt(d) / n; the sum n times that
    sites = [{"site_id": "site-a", "nominal_patients": 40}, {"site_id": "site-b"}]
    study = tiny_study(privacy={"mode": "local", "clip": 0.5}, sites=sites)
    expected = ExpectedUpdate(study, {}, 1.0)
    noise = 0.5 * sigma_of(study) * (math.sqrt(10_000) + 8)
    assert expected.norm_bound(10_000, "site-a") == pytest.approx(0.5 * 2 * 40 + noise)
    assert expected.norm_bound(10_000, "site-b") == pytest.approx(0.5 * 10 * 90 + noise)


@pytest.mark.parametrize("release", ["dp", "internal"])
def test_exact_counts_are_taken_only_with_exact_tables(release):
    study = tiny_study(privacy={"evaluation": {"release": release}})
    asked = EvaluateRequest(run_id="r", round=0, model_digest="0" * 64, release=release)
    expected = ExpectedTables(study, asked)
    counts = CohortCounts(
        listed=9, labelled=9, usable=9, train=6, held_out=3, observed={}, present={}
    )
    reply = EvaluateReply(
        site_id="a",
        run_id="r",
        round=0,
        model_digest="0" * 64,
        label=asked.label,
        release=release,
        cohort=counts,
        arrays={name: np.zeros(shape, np.int64) for name, shape in expected.shapes.items()},
    )
    if release == "internal":
        expected.check(reply, "a", [])
        return
    with pytest.raises(ProtocolError, match="exact counts") as refused:
        expected.check(reply, "a", [])
    assert refused.value.code == ErrorCode.PAYLOAD


def test_norm_of_an_update_does_not_depend_on_the_order_of_its_arrays():
    rng = np.random.default_rng(0)
    arrays = {f"p{i}": rng.normal(size=50) * 10.0**i for i in range(-4, 5)}
    reversed_order = dict(reversed(arrays.items()))
    assert joint_norm(arrays) == joint_norm(reversed_order)
    assert joint_norm(arrays) == pytest.approx(
        np.linalg.norm(np.concatenate(list(arrays.values()))), rel=1e-14
    )
