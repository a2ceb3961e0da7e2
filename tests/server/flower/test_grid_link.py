"""Exchanges over a Grid that is late, loses messages, and hosts impostors."""

import threading
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.errors import ErrorCode, RunError
from common.protocol.protocol import StatusReply, StatusRequest, TrainReply, TrainRequest
from common.trust.signature import public_half
from common.trust.site_proof import prove
from server.flower.grid_link import GridLink
from server.flower.grid_message import pack
from server.session.site_link import Refusal

DIGEST = "a" * 64


class FakeGrid:
    """Answers status at once; everything else as `behaviour(node, call number)` says.

    A behaviour returns the delay of an honest reply in seconds, "error" for a transport error,
    None for silence, or the content of a reply.
    """

    def __init__(
        self, nodes, behaviour=lambda _node, _call: 0.0, proof=lambda _node, _site, _challenge: None
    ):
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
        self.nodes, self.behaviour = dict(nodes), behaviour
        self.proof, self.challenges = proof, []
        self.pushed, self.calls, self._waiting = [], {}, {}

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        ids = []
        for message in messages:
            message_id = f"m{len(self._waiting)}"
            message.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = self._reply(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids):
        now, ready = time.monotonic(), []
        for message_id in list(message_ids):
            due, reply = self._waiting.get(message_id, (float("inf"), None))
            if due <= now:
                ready.append(reply)
                del self._waiting[message_id]
                self._waiting[f"gone {message_id}"] = (float("inf"), None)
        return ready

    def _reply(self, message):
        node, now = message.metadata.dst_node_id, time.monotonic()
        site = self.nodes[node]
        header = message.content.config_records["tumorboard"]["header"]
        method = message.content.config_records["tumorboard"]["method"]
        if method == "status":
            self.challenges.append(StatusRequest.decode(header, EMPTY).challenge)
            proof = self.proof(node, site, self.challenges[-1])
            status = StatusReply(site_id=site, state="idle", proof=proof)
            return now, self._typed(message, status)
        self.pushed.append(node)
        self.calls[node] = self.calls.get(node, 0) + 1
        wish = self.behaviour(node, self.calls[node])
        if wish is None:
            return float("inf"), None
        if wish == "error":
            return now, Message(Error(code=0, reason="lost"), reply_to=message)
        if isinstance(wish, RecordDict):
            return now, self._from(message, Message(wish, reply_to=message))
        honest = TrainReply(
            site_id=site, run_id="run-1", round=1, model_digest=DIGEST, kind="delta"
        )
        return now + wish, self._typed(message, honest)

    def _typed(self, message, reply):
        return self._from(message, Message(pack("train", *reply.encode()), reply_to=message))

    def _from(self, message, reply):
        reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
        return reply


EMPTY = StatusRequest().encode()[1]
SITES = {11: "site-a", 12: "site-b", 13: "site-c"}


def open_link(grid, roster=None, **options):
    keys = dict.fromkeys(SITES.values()) | (roster or {})
    return GridLink(grid, keys, poll_s=0.001, **options)


def ask(link, sites=("site-a", "site-b", "site-c"), deadline_s=5.0, number=1, **options):
    request = TrainRequest(run_id="run-1", round=number, model_digest=DIGEST)
    return link.exchange("train", dict.fromkeys(sites, request), deadline_s=deadline_s, **options)


def test_all_answer():
    link = open_link(FakeGrid(SITES))
    replies = ask(link)
    assert {site: reply.site_id for site, reply in replies.items()} == {
        s: s for s in SITES.values()
    }
    assert link.site_ids() == ("site-a", "site-b", "site-c")


def test_silent_site_costs_the_deadline_and_no_more():
    link = open_link(FakeGrid(SITES, lambda node, _c: None if node == 12 else 0.0))
    started = time.monotonic()
    assert sorted(ask(link, deadline_s=0.5)) == ["site-a", "site-c"]
    assert 0.45 < time.monotonic() - started < 2.0


def test_late_reply_counts_when_the_same_request_is_made_again():
    grid = FakeGrid(SITES, lambda node, _c: 0.6 if node == 12 else 0.0)
    link = open_link(grid)
    assert "site-b" not in ask(link, deadline_s=0.2)
    assert "site-b" in ask(link, sites=("site-b",), deadline_s=5.0)
    assert grid.pushed.count(12) == 1


def test_late_reply_to_an_earlier_round_is_dropped():
    grid = FakeGrid(SITES, lambda node, call: (0.3 if call == 1 else 0.0) if node == 12 else 0.0)
    link = open_link(grid)
    assert "site-b" not in ask(link, deadline_s=0.1)
    assert "site-b" in ask(link, number=2, deadline_s=5.0)
    assert grid.pushed.count(12) == 2


def test_optional_site_is_asked_but_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("server.flower.grid_link.MIN_GRACE_S", 0.2)
    link = open_link(FakeGrid(SITES, lambda node, _c: None if node == 12 else 0.0))
    started = time.monotonic()
    assert sorted(ask(link, deadline_s=20.0, optional={"site-b"})) == ["site-a", "site-c"]
    assert time.monotonic() - started < 5.0


def test_lost_message_is_pushed_again():
    grid = FakeGrid(SITES, lambda node, call: "error" if (node, call) == (12, 1) else 0.0)
    assert "site-b" in ask(open_link(grid), deadline_s=10.0)
    assert grid.calls[12] == 2


def test_transport_that_always_fails_is_given_up(monkeypatch):
    monkeypatch.setattr("server.flower.grid_link.MAX_PUSHES", 1)
    grid = FakeGrid(SITES, lambda node, _c: "error" if node == 12 else 0.0)
    replies = ask(open_link(grid), deadline_s=30.0)
    assert replies["site-b"] == Refusal(ErrorCode.INTERNAL)


def test_site_that_appears_before_the_deadline_is_asked():
    grid = FakeGrid({11: "site-a", 13: "site-c"})
    link = open_link(grid)
    assert "site-b" not in ask(link, deadline_s=0.1)
    grid.nodes[12] = "site-b"
    assert "site-b" in ask(link, sites=("site-b",), deadline_s=10.0)


def test_second_node_cannot_take_a_live_site_over():
    grid = FakeGrid({11: "site-a"})
    link = open_link(grid)
    assert "site-a" in ask(link, sites=("site-a",))
    grid.nodes[99] = "site-a"
    link._refreshed = -10.0
    assert "site-a" in ask(link, sites=("site-a",), number=2)
    assert 99 not in grid.pushed


BROKEN = {
    "refusal": (RecordDict({"tumorboard": ConfigRecord({"code": "TB503"})}), "TB503"),
    "no payload": (
        RecordDict({"tumorboard": ConfigRecord({"method": "train", "header": "{}"})}),
        ErrorCode.PAYLOAD,
    ),
    "header of another type": (pack("train", '{"evil": 1}', b""), ErrorCode.PAYLOAD),
    "payload that is no archive": (pack("train", "{}", b"\x80\x04pickle"), ErrorCode.PAYLOAD),
    "nothing": (RecordDict(), ErrorCode.PAYLOAD),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_unreadable_reply_is_a_refusal(kind):
    content, code = BROKEN[kind]
    link = open_link(FakeGrid({11: "site-a"}, lambda *_: content))
    assert ask(link, sites=("site-a",)) == {"site-a": Refusal(code)}


def test_request_is_encoded_once_for_all_sites(monkeypatch):
    encoded = []
    original = TrainRequest.encode
    monkeypatch.setattr(TrainRequest, "encode", lambda self: encoded.append(1) or original(self))
    ask(open_link(FakeGrid(SITES)))
    assert len(encoded) == 1


IDENTITY = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()
ROSTER = {"site-a": public_half(IDENTITY)}


def signed_by(key):
    return lambda _node, site, challenge: prove(key, site, challenge)


def test_node_that_signs_the_challenge_is_believed():
    grid = FakeGrid({11: "site-a"}, proof=signed_by(IDENTITY))
    assert "site-a" in ask(open_link(grid, ROSTER), sites=("site-a",))


def old_proof(key):
    """The first proof, whatever is asked afterwards."""
    first = []

    def proof(_node, site, challenge):
        first.append(prove(key, site, challenge))
        return first[0]

    return proof


IMPOSTORS = {
    "no proof": lambda *_: None,
    "key of a stranger": signed_by(STRANGER),
    "proof of another site": lambda _n, _s, challenge: prove(IDENTITY, "site-b", challenge),
    "not a signature": lambda *_: "zz",
    "proof for another challenge": lambda _n, site, _c: prove(IDENTITY, site, "0" * 64),
}


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_node_that_cannot_prove_its_site_gets_nothing(kind):
    told = []
    grid = FakeGrid({66: "site-a"}, proof=IMPOSTORS[kind])
    link = open_link(grid, ROSTER, report=lambda *event: told.append(event))
    replies = ask(link, sites=("site-a",), deadline_s=0.2)
    assert replies == {"site-a": Refusal(ErrorCode.UNPROVEN)}
    assert grid.pushed == []
    assert told == [("site-a", 66, ErrorCode.UNPROVEN)]


def test_replayed_proof_is_refused(monkeypatch):
    monkeypatch.setattr("server.flower.node_registry.ASK_AGAIN_S", 0.0)
    proof = old_proof(IDENTITY)
    first = FakeGrid({11: "site-a"}, proof=proof)
    assert "site-a" in ask(open_link(first, ROSTER), sites=("site-a",))
    later = FakeGrid({66: "site-a"}, proof=proof)
    replies = ask(open_link(later, ROSTER), sites=("site-a",), deadline_s=0.2)
    assert replies == {"site-a": Refusal(ErrorCode.UNPROVEN)}
    assert later.pushed == []


def test_challenges_are_never_repeated(monkeypatch):
    monkeypatch.setattr("server.flower.node_registry.ASK_AGAIN_S", 0.0)
    monkeypatch.setattr("server.flower.grid_link.DISCOVERY_S", 0.0)
    grid = FakeGrid({66: "site-a"})
    ask(open_link(grid, ROSTER), sites=("site-a",), deadline_s=0.1)
    assert len(grid.challenges) == len(set(grid.challenges)) > 2


def test_true_site_gets_in_beside_an_impostor():
    grid = FakeGrid(
        {11: "site-a", 12: "site-a"},
        proof=lambda node, site, c: prove(IDENTITY if node == 12 else STRANGER, site, c),
    )
    assert "site-a" in ask(open_link(grid, ROSTER), sites=("site-a",))
    assert grid.pushed == [12]


def test_reply_of_another_node_does_not_count():
    class Meddler(FakeGrid):
        def _from(self, message, reply):
            other = 12 if message.content.config_records["tumorboard"]["method"] == "train" else 11
            reply.metadata.__dict__["_src_node_id"] = other
            return reply

    link = open_link(Meddler({11: "site-a"}))
    assert ask(link, sites=("site-a",)) == {"site-a": Refusal(ErrorCode.UNPROVEN)}


def test_request_that_a_restarted_node_lost_is_pushed_again(monkeypatch):
    monkeypatch.setattr("server.flower.grid_link.CHASE_S", 0.1)
    grid = FakeGrid({11: "site-a"}, lambda _n, call: None if call == 1 else 0.0)
    assert "site-a" in ask(open_link(grid), sites=("site-a",), deadline_s=5.0)
    assert grid.calls[11] == 2


def test_slow_node_is_not_asked_twice(monkeypatch):
    """It answers in order, so its silence to a later question says nothing."""
    monkeypatch.setattr("server.flower.grid_link.CHASE_S", 0.1)

    class InOrder(FakeGrid):
        def _reply(self, message):
            due, reply = super()._reply(message)
            busy = max((d for d, _ in self._waiting.values() if d != float("inf")), default=0.0)
            return max(due, busy), reply

    grid = InOrder({11: "site-a"}, lambda _n, _c: 1.0)
    assert "site-a" in ask(open_link(grid), sites=("site-a",), deadline_s=5.0)
    assert grid.calls[11] == 1
    assert len(grid.challenges) == 2


def test_node_that_no_longer_proves_its_site_loses_it(monkeypatch):
    monkeypatch.setattr("server.flower.grid_link.CHASE_S", 0.05)
    count = []

    def once(_node, site, challenge):
        count.append(1)
        return prove(IDENTITY if len(count) == 1 else STRANGER, site, challenge)

    grid = FakeGrid({11: "site-a"}, lambda *_: None, proof=once)
    link = open_link(grid, ROSTER)
    replies = ask(link, sites=("site-a",), deadline_s=0.5)
    assert replies == {"site-a": Refusal(ErrorCode.UNPROVEN)}
    assert link.site_ids() == ()


def test_offline_node_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("server.flower.grid_link.MIN_GRACE_S", 0.2)
    monkeypatch.setattr("server.flower.grid_link.DISCOVERY_S", 0.0)
    grid = FakeGrid(SITES, lambda node, _c: None if node == 12 else 0.0)
    link = open_link(grid)
    assert len(link.site_ids()) == 3
    del grid.nodes[12]
    started = time.monotonic()
    assert sorted(ask(link, deadline_s=20.0)) == ["site-a", "site-c"]
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize("away", ["offline", "optional"])
def test_nobody_is_optional_below_the_quorum(away, monkeypatch):
    """Else three attempts at a round were gone before a cut line is back."""
    monkeypatch.setattr("server.flower.grid_link.MIN_GRACE_S", 0.1)
    monkeypatch.setattr("server.flower.grid_link.DISCOVERY_S", 0.0)
    grid = FakeGrid(SITES, lambda node, _c: 1.0 if node == 12 else 0.0)
    link = open_link(grid)
    assert len(link.site_ids()) == 3
    options = {"optional": {"site-b"}} if away == "optional" else {}
    if away == "offline":
        del grid.nodes[12]
        threading.Timer(0.8, lambda: grid.nodes.update({12: "site-b"})).start()
        grid.behaviour = lambda _node, _call: 0.0
    assert "site-b" in ask(link, deadline_s=10.0, needed=3, **options)


def test_flower_that_ends_the_run_is_one_error():
    class Ended(FakeGrid):
        def pull_messages(self, message_ids):
            raise RuntimeError("run is not running")

    with pytest.raises(RunError) as caught:
        ask(open_link(Ended(SITES)))
    assert caught.value.code == ErrorCode.TRANSPORT
