"""Act as a malicious relay that calls the agent's socket at will.

It makes every call of the protocol, in every order it likes, honest, forged and garbled. It may
even open a run of a study the hospital approved, since that is what a coordinator may do. What
it then gets is what policy and ledger give anybody.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.agent.socket_call import SERVICE, from_frame, to_frame
from client.site.enrol_connection import SiteConnection
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.protocol import (
    METHODS,
    EvaluateRequest,
    StatusRequest,
    TrainRequest,
)
from common.secure_sum.messages import AdvertiseRequest, AgreeKeysRequest, UnmaskRequest
from common.study.study import Study
from common.trust.roster import SignedRoster
from common.wire import WireMessage, arrays_digest
from simulations.attackers.forged import forged_handshakes, handshake, newer

OTHER_METHODS = ("shell", "_run", "__init__", "predict", "Status")
CALL_S = 60.0


@dataclass
class Loot:
    """What the calls brought.

    Attributes:
        calls: Calls made.
        refused: Code -> how often.
        trained: Rounds for which an update was released, each as often as it was.
        replies: Digests of released updates by round.
        unexpected: Answers that should not have been given.
    """

    calls: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    trained: list[int] = field(default_factory=list)
    replies: dict[int, set[str]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)


def attack(socket: Path, study: Study, *, seed: int, orders: int = 40) -> Loot:
    """Make every call on an agent's socket and return what came back.

    Args:
        socket: The agent's socket.
        study: A study the hospital has approved.
        seed: Seed of the orders.
        orders: How many calls of the third part.
    """
    loot, rng = Loot(), random.Random(seed)
    for name, request in _requests(study, "never-opened", rng):
        _expect_refusal(socket, loot, f"{name} of an unknown run", name, request)
    for name, frame in _garbage(rng):
        _call(socket, loot, name, frame)
    _send_forged_handshakes(socket, study, loot)
    run = "stolen-run"
    _call(socket, loot, "handshake", _frame(handshake(study, run)))
    plans = list(_requests(study, run, rng))
    for _ in range(orders):
        name, request = rng.choice(plans)
        reply = _call(socket, loot, name, _frame(request))
        if reply is not None and isinstance(request, TrainRequest):
            loot.trained.append(request.round)
            digest = arrays_digest(METHODS["train"][1].decode(*reply).arrays)
            loot.replies.setdefault(request.round, set()).add(digest)
    return loot


def _requests(study: Study, run: str, rng: random.Random) -> Iterator[tuple[str, WireMessage]]:
    arrays = to_arrays(build_model(study))
    generator = np.random.default_rng(rng.randrange(2**32))
    for number in (1, 1, 2, study.training.rounds, study.training.rounds + 1, 10**6):
        noisy_arrays = {
            n: a + generator.normal(size=a.shape).astype(a.dtype) for n, a in arrays.items()
        }
        facts = {"run_id": run, "round": number, "model_digest": arrays_digest(noisy_arrays)}
        train = TrainRequest.model_validate(facts)
        yield "train", train.model_copy(update={"arrays": noisy_arrays})
        ask = EvaluateRequest.model_validate(facts | {"label": "stolen", "release": "internal"})
        yield "evaluate", ask.model_copy(update={"arrays": noisy_arrays})
        yield "unmask", UnmaskRequest(run_id=run, session=1, round=number, survivors=["a", "b"])
    yield "advertise_keys", AdvertiseRequest(run_id=run, session=1, study_digest=study.digest())
    yield "agree_keys", AgreeKeysRequest(run_id=run, session=1, adverts=[])


def _send_forged_handshakes(socket: Path, study: Study, loot: Loot) -> None:
    looser = study.model_copy(
        update={"privacy": study.privacy.model_copy(update={"epsilon": 1000.0})}
    )
    requests = forged_handshakes(study, looser, study)
    for what, roster in _forged_rosters(socket.parent.parent):
        requests[what] = handshake(study, "forged", roster_json=roster)
    for what, request in requests.items():
        reply = _call(socket, loot, "handshake", _frame(request))
        accepted = reply is not None and METHODS["handshake"][1].decode(*reply)
        if accepted and getattr(accepted, "accepted", False):
            loot.unexpected.append(what)


def _forged_rosters(site: Path) -> Iterator[tuple[str, str]]:
    """Yield rosters as somebody makes them who has seen all earlier ones, and no roster key."""
    roster_file = SiteConnection.of_site(site).roster_file
    if not roster_file.is_file():
        return
    signed = SignedRoster.model_validate_json(roster_file.read_text(encoding="utf-8"))
    later = newer(signed)
    yield "altered roster", later.text()
    yield (
        "roster of another key",
        SignedRoster.make(later.roster, Ed25519PrivateKey.generate()).text(),
    )
    for kit in sorted((site.parent.parent / "kits").glob("*/roster.json")):
        text = kit.read_text(encoding="utf-8")
        version = SignedRoster.model_validate_json(text).roster.version
        if version < signed.roster.version:
            yield f"roster of version {version}", text


def _garbage(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    whole = to_frame(*StatusRequest().encode())
    for name in (*METHODS, *OTHER_METHODS):
        yield name, b""
        yield name, rng.randbytes(200)
        yield name, whole[:-3]
        yield name, to_frame('{"run_id": "x", "evil": 1}', b"\x80\x04pickle")


def _expect_refusal(socket: Path, loot: Loot, what: str, method: str, request: WireMessage) -> None:
    if _call(socket, loot, method, _frame(request)) is not None:
        loot.unexpected.append(what)


def _frame(request: WireMessage) -> bytes:
    return to_frame(*request.encode())


def _call(socket: Path, loot: Loot, method: str, frame: bytes) -> tuple[str, bytes] | None:
    loot.calls += 1
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            return from_frame(channel.unary_unary(f"/{SERVICE}/{method}")(frame, timeout=CALL_S))
        except grpc.RpcError as error:
            is_refused = error.code() == grpc.StatusCode.FAILED_PRECONDITION
            code = str(error.details()) if is_refused else error.code().name
            loot.refused[code] = loot.refused.get(code, 0) + 1
            return None
