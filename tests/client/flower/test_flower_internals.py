"""What the hospital's side replaces or leans on in Flower: on Flower's own loop, state and HTTP."""

import inspect
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE, SubStatus
from flwr.supercore import constant
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.superexec.executor.warm_executor_pool import WARM_EXECUTOR_TASK_TYPES
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal as loop
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from client.flower import flower_internals
from client.flower.flower_internals import (
    IDLE_S,
    LOST,
    SHORT_WAITS,
    NodeRuntime,
    envelope,
    pull,
    push,
    run_supernode,
    shorten_waits,
)
from client.flower.relay import Relay
from common.process.free_port import free_port

SECRET = b"s" * 32
PULLS = (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree)


@pytest.fixture
def flowers_own_waits(monkeypatch):
    for function in PULLS:
        stock = {
            "initial_backoff": constant.PULL_INITIAL_BACKOFF,
            "backoff_cap": constant.PULL_BACKOFF_CAP,
            "max_tries_per_object": constant.PULL_MAX_TRIES_PER_OBJECT,
        }
        monkeypatch.setattr(function, "__kwdefaults__", function.__kwdefaults__ | stock)


def seconds_until_third_look(pulls):
    asked = 0

    def look(object_id):
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ObjectUnavailableError(object_id)
        return b"there"

    started = time.monotonic()
    assert pulls(["a"], look) == {"a": b"there"}
    assert asked == 3
    return time.monotonic() - started


def test_late_content_costs_milliseconds_and_flowers_patience_stays(flowers_own_waits):
    assert constant.PULL_INITIAL_BACKOFF >= 1, "Flower looks sooner by itself: shorten_waits can go"
    assert all(set(SHORT_WAITS) <= set(function.__kwdefaults__) for function in PULLS)
    shorten_waits()
    assert seconds_until_third_look(inflatable_utils.pull_objects) < 0.5
    for function in PULLS:
        waits = function.__kwdefaults__
        assert waits["backoff_cap"] <= constant.PULL_BACKOFF_CAP
        patience = waits["max_tries_per_object"] * waits["backoff_cap"]
        assert patience >= waits["max_time"] == constant.PULL_MAX_TIME


class EndedError(Exception):
    """Ends Flower's endless loop."""


class Sleeps(list):
    """Stands in for the module `time`; ends the loop at the third sleep."""

    def sleep(self, seconds):
        self.append(seconds)
        if len(self) == 3:
            raise EndedError


@pytest.mark.timeout(30)
def test_the_nodes_loop_sleeps_on_the_clock_it_is_given(monkeypatch):
    """First twice without a message, then waiting for a reply."""

    @contextmanager
    def connection(**_):
        yield (5, *[None] * 7)

    pulled = iter([None, None, 7])
    monkeypatch.setattr(loop, "_init_connection", connection)
    monkeypatch.setattr(loop, "_pull_and_store_message", lambda **_: next(pulled))
    monkeypatch.setattr(loop, "register_signal_handlers", lambda **_: None)
    monkeypatch.setattr(loop, "time", time)
    node = SimpleNamespace(
        flower_supernode=lambda: loop.start_client_internal(
            state_factory=NodeStateFactory(ObjectStoreFactory()),
            server_address="127.0.0.1:9",
            node_config={},
            insecure=True,
            isolation="process",
        )
    )
    real = flower_internals.import_module
    monkeypatch.setattr(
        flower_internals,
        "import_module",
        lambda name: node if name == "flwr.supernode.cli.flower_supernode" else real(name),
    )
    sleeps = Sleeps()
    with pytest.raises(EndedError):
        run_supernode(sleeps)
    assert sleeps[:2] == [IDLE_S, IDLE_S]
    assert sleeps[2] < IDLE_S
    options = inspect.signature(loop.start_client_internal).parameters
    assert not [o for o in options if "poll" in o or "interval" in o or "sleep" in o]


@pytest.fixture
def node():
    """State and address of a SuperNode that has one message, behind Flower's HTTP interface."""
    factory = NodeStateFactory(ObjectStoreFactory())
    state, port = factory.state(), free_port()
    state.set_node_id(5)
    fab = state.store_fab(Fab("", b"bundle", {}))
    run = replace(Run.create_empty(run_id=3), fab_hash=fab)
    state.store_run(run)
    state.set_run_series_context(run.series_id, Context(3, 5, {"a": "b"}, RecordDict(), {}))
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 3, 0
    message = Message(RecordDict({"x": ConfigRecord({"y": b"z"})}), 5, "query")
    loop._insert_message(message, state, state.object_store)
    state.create_task(task_type=TaskType.CLIENT_APP, run_id=3, fab_hash=fab)
    app = create_app(factory, superexec_auth_secret=SECRET)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield state, f"127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def replies(state):
    return list(state.get_messages_legacy(is_reply=True))


def test_a_message_is_taken_and_answered_over_the_nodes_own_interface(node):
    state, address = node
    with closing(NodeRuntime(address, SECRET)) as runtime:
        with runtime.task(runtime.acquire()) as client:
            message, context, bundle = pull(client)
            assert message.content["x"]["y"] == b"z"
            assert (context.node_config, bundle) == ({"a": "b"}, b"bundle")
            push(client, Message(RecordDict({"r": ConfigRecord({"s": 1})}), reply_to=message))
        assert runtime.acquire() == ""
    (reply,) = replies(state)
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert not reply.has_error()
    assert state.object_store.get_object_tree(reply.metadata.message_id).children
    assert TaskType.CLIENT_APP not in WARM_EXECUTOR_TASK_TYPES, "Flower keeps client apps by itself"


def test_who_does_not_share_the_secret_gets_no_message(node):
    # Flower's client ends a process that is not let in, or gives up if the answers come slowly.
    refused = (KeyboardInterrupt, httpx.HTTPStatusError)
    with closing(NodeRuntime(node[1], b"x" * 32)) as runtime, pytest.raises(refused):
        runtime.acquire()


def left_in_the_middle(address):
    """Token and envelope of a message whose relay was killed: no sign of life, no answer."""
    with closing(NodeRuntime(address, SECRET)) as runtime:
        token = runtime.acquire()
    guard = flower_internals.RuntimeTokenHttpInterceptor(token)
    client = flower_internals._connect(address, "flwr-clientapp", guard)
    message, _, _ = pull(client)
    client.close()
    return token, envelope(message), message.metadata.message_id


def test_the_coordinator_hears_at_once_of_a_message_that_a_killed_relay_left(node, tmp_path):
    state, address = node
    token, lost, asked = left_in_the_middle(address)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret.task").write_text(f"{token} {lost.hex()}")
    relay = Relay(address, tmp_path / "secret", tmp_path / "allowed")
    relay._answer_left_behind()
    (reply,) = replies(state)
    assert reply.metadata.reply_to_message_id == asked
    assert (reply.has_error(), reply.error.reason) == (True, LOST)
    assert not (tmp_path / "secret.task").exists()
    relay._push_lost(token, lost)  # it is answered: nothing comes of a second time
    relay._runtime.close()
    assert replies(state) == []


def test_flower_itself_leaves_such_a_message_for_a_minute(node):
    state, address = node
    token, _, _ = left_in_the_middle(address)
    task = state.get_task_by_token(token)
    assert state.finish_task(task.task_id, SubStatus.FAILED, "x")
    assert replies(state) == [], "Flower answers by itself: the pending task can go"
    assert HEARTBEAT_PATIENCE * HEARTBEAT_DEFAULT_INTERVAL >= 60


def test_a_message_that_cannot_be_relayed_is_answered_as_lost(node, tmp_path, monkeypatch):
    state, address = node
    (tmp_path / "secret").write_bytes(SECRET)
    relay = Relay(address, tmp_path / "secret", tmp_path / "allowed")
    monkeypatch.setattr(relay, "_answer", lambda *_: 1 / 0)
    relay._relay(relay._runtime.acquire())
    relay._runtime.close()
    (reply,) = replies(state)
    assert reply.error.reason == LOST
