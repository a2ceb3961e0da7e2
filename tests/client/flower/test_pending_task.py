"""A message that a killed relay had in hand is given up at once, in Flower's own node state."""

import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client.flower.pending_task import LOST, TaskInHand, answering_lost
from client.flower.relay import Relay

HOLD = """
import sys, time
from pathlib import Path
from client.flower.pending_task import TaskInHand
with TaskInHand(Path(sys.argv[1])).noted("token-7"):
    print("in hand", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "relay.secret"
    path.write_bytes(b"secret")
    return path


def test_a_killed_relay_leaves_its_token_to_its_user_and_one_reader(secret):
    command = [sys.executable, "-c", HOLD, str(secret)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as relay:
        assert relay.stdout.readline() == b"in hand\n"
        relay.send_signal(signal.SIGKILL)
    file = secret.with_name("relay.secret.task")
    assert file.stat().st_mode & 0o777 == 0o600
    assert TaskInHand(secret).left_behind() == "token-7"
    assert not file.exists()
    assert TaskInHand(secret).left_behind() == ""


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind_by_a_message_that_was_dealt_with(secret, fails):
    def relay():
        with TaskInHand(secret).noted("token-7"):
            if fails:
                raise KeyError

    with pytest.raises(KeyError) if fails else nullcontext():
        relay()
    assert TaskInHand(secret).left_behind() == ""


def test_where_no_file_can_be_made_the_message_is_relayed_all_the_same(secret):
    done = []
    with TaskInHand(secret.parent / "no" / "relay.secret").noted("token-7"):
        done.append(1)
    assert done


def test_a_node_that_is_away_or_knows_no_such_token_stops_no_relay(secret, tmp_path):
    secret.with_name("relay.secret.task").write_text("token-7")
    started = time.monotonic()
    Relay("127.0.0.1:9", secret, tmp_path / "allowed")._give_up_what_was_left()
    assert time.monotonic() - started < 10
    assert not secret.with_name("relay.secret.task").exists()


class Node(InMemoryNodeState):
    """Flower's node state, as the SuperNode runs it."""

    finish_task = answering_lost(InMemoryNodeState.finish_task)


def node_with_a_message_in_hand():
    node = Node(ObjectStoreFactory().store())
    node.set_node_id(5)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 3, 1
    message = Message(RecordDict(), 5, "query")
    message.metadata.__dict__.update(_message_id=message.object_id)
    node.store_message(message)
    task = node.create_task(task_type=TaskType.CLIENT_APP, run_id=3, fab_hash="f")
    token = node.claim_task(task)
    assert node.activate_task(task)
    node.get_messages_legacy(run_ids=[3], is_reply=False, limit=1)
    return node, task, token, message.object_id


@pytest.mark.parametrize(
    ("details", "answers"), [(LOST, 1), ("Pulling message objects failed: x", 0)]
)
def test_the_coordinator_hears_of_a_lost_message_at_once(details, answers):
    node, task, token, asked = node_with_a_message_in_hand()
    assert node.get_task_by_token(token).task_id == task
    assert node.finish_task(task, SubStatus.FAILED, details)
    replies = node.get_messages_legacy(is_reply=True)
    assert [reply.metadata.reply_to_message_id for reply in replies] == [asked] * answers
    assert all(reply.has_error() for reply in replies)
    assert not node.finish_task(task, SubStatus.FAILED, details)
