"""Exchanges over a Grid that is late, loses messages, and hosts impostors."""

import time

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.errors import ErrorCode
from common.protocol import StatusReply, TrainReply, TrainRequest
from server.flower_app import GridLink, pack
from server.site_link import Refusal

DIGEST = "a" * 64


class FakeGrid:
    """Answers status at once; everything else as `behaviour(node, call number)` says.

    A behaviour returns the delay of an honest reply in seconds, "error" for a transport error,
    None for silence, or the content of a reply.
    """

    def __init__(self, nodes, behaviour=lambda _node, _call: 0.0):
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
        self.nodes, self.behaviour = dict(nodes), behaviour
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
        method = message.content.config_records["tumorboard"]["method"]
        if method == "status":
            return now, self._typed(message, StatusReply(site_id=site, state="idle"))
        self.pushed.append(node)
        self.calls[node] = self.calls.get(node, 0) + 1
        wish = self.behaviour(node, self.calls[node])
        if wish is None:
            return float("inf"), None
        if wish == "error":
            return now, Message(Error(code=0, reason="lost"), reply_to=message)
        if isinstance(wish, RecordDict):
            return now, Message(wish, reply_to=message)
        honest = TrainReply(
            site_id=site, run_id="run-1", round=1, model_digest=DIGEST, kind="delta"
        )
        return now + wish, self._typed(message, honest)

    def _typed(self, message, reply):
        return Message(pack("train", *reply.encode()), reply_to=message)


SITES = {11: "site-a", 12: "site-b", 13: "site-c"}


def ask(link, sites=("site-a", "site-b", "site-c"), deadline_s=5.0, number=1, **options):
    request = TrainRequest(run_id="run-1", round=number, model_digest=DIGEST)
    return link.exchange("train", dict.fromkeys(sites, request), deadline_s=deadline_s, **options)


def test_all_answer():
    link = GridLink(FakeGrid(SITES), poll_s=0.001)
    replies = ask(link)
    assert {site: reply.site_id for site, reply in replies.items()} == {
        s: s for s in SITES.values()
    }
    assert link.site_ids() == ("site-a", "site-b", "site-c")


def test_silent_site_costs_the_deadline_and_no_more():
    link = GridLink(FakeGrid(SITES, lambda node, _c: None if node == 12 else 0.0), poll_s=0.001)
    started = time.monotonic()
    assert sorted(ask(link, deadline_s=0.5)) == ["site-a", "site-c"]
    assert 0.45 < time.monotonic() - started < 2.0


def test_late_reply_counts_when_the_same_request_is_made_again():
    grid = FakeGrid(SITES, lambda node, _c: 0.6 if node == 12 else 0.0)
    link = GridLink(grid, poll_s=0.001)
    assert "site-b" not in ask(link, deadline_s=0.2)
    assert "site-b" in ask(link, sites=("site-b",), deadline_s=5.0)
    assert grid.pushed.count(12) == 1


def test_late_reply_to_an_earlier_round_is_dropped():
    grid = FakeGrid(SITES, lambda node, call: (0.3 if call == 1 else 0.0) if node == 12 else 0.0)
    link = GridLink(grid, poll_s=0.001)
    assert "site-b" not in ask(link, deadline_s=0.1)
    assert "site-b" in ask(link, number=2, deadline_s=5.0)
    assert grid.pushed.count(12) == 2


def test_optional_site_is_asked_but_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("server.flower_app.MIN_GRACE_S", 0.2)
    link = GridLink(FakeGrid(SITES, lambda node, _c: None if node == 12 else 0.0), poll_s=0.001)
    started = time.monotonic()
    assert sorted(ask(link, deadline_s=20.0, optional={"site-b"})) == ["site-a", "site-c"]
    assert time.monotonic() - started < 5.0


def test_lost_message_is_pushed_again():
    grid = FakeGrid(SITES, lambda node, call: "error" if (node, call) == (12, 1) else 0.0)
    assert "site-b" in ask(GridLink(grid, poll_s=0.001), deadline_s=10.0)
    assert grid.calls[12] == 2


def test_transport_that_always_fails_is_given_up(monkeypatch):
    monkeypatch.setattr("server.flower_app.MAX_PUSHES", 1)
    grid = FakeGrid(SITES, lambda node, _c: "error" if node == 12 else 0.0)
    replies = ask(GridLink(grid, poll_s=0.001), deadline_s=30.0)
    assert replies["site-b"] == Refusal(ErrorCode.INTERNAL)


def test_site_that_appears_before_the_deadline_is_asked():
    grid = FakeGrid({11: "site-a", 13: "site-c"})
    link = GridLink(grid, poll_s=0.001)
    assert "site-b" not in ask(link, deadline_s=0.1)
    grid.nodes[12] = "site-b"
    assert "site-b" in ask(link, sites=("site-b",), deadline_s=10.0)


def test_second_node_cannot_take_a_live_site_over():
    grid = FakeGrid({11: "site-a"})
    link = GridLink(grid, poll_s=0.001)
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
    link = GridLink(FakeGrid({11: "site-a"}, lambda *_: content), poll_s=0.001)
    assert ask(link, sites=("site-a",)) == {"site-a": Refusal(code)}


def test_request_is_encoded_once_for_all_sites(monkeypatch):
    encoded = []
    original = TrainRequest.encode
    monkeypatch.setattr(TrainRequest, "encode", lambda self: encoded.append(1) or original(self))
    ask(GridLink(FakeGrid(SITES), poll_s=0.001))
    assert len(encoded) == 1
