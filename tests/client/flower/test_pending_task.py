"""The message that a killed relay was handling stays on file for its successor."""

import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.flower.flower_internals import envelope
from client.flower.relay import PendingTask, Relay

HOLD = """
import sys, time
from pathlib import Path
from client.flower.relay import PendingTask
with PendingTask(Path(sys.argv[1])).noted("token-7", b"envelope"):
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
    assert PendingTask(secret).left_behind() == ("token-7", b"envelope")
    assert not file.exists()
    assert PendingTask(secret).left_behind() is None


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind_by_a_message_that_was_dealt_with(secret, fails):
    def relay():
        with PendingTask(secret).noted("token-7", b"envelope"):
            if fails:
                raise KeyError

    with pytest.raises(KeyError) if fails else nullcontext():
        relay()
    assert PendingTask(secret).left_behind() is None


def test_where_no_file_can_be_made_the_message_is_relayed_all_the_same(secret):
    done = []
    with PendingTask(secret.parent / "no" / "relay.secret").noted("token-7", b"envelope"):
        done.append(1)
    assert done


def test_a_node_that_is_away_or_knows_no_such_token_stops_no_relay(secret, tmp_path):
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 3, 0
    lost = envelope(Message(RecordDict(), 5, "query"))
    secret.with_name("relay.secret.task").write_text(f"token-7 {lost.hex()}")
    started = time.monotonic()
    Relay("127.0.0.1:9", secret, tmp_path / "allowed")._answer_left_behind()
    assert time.monotonic() - started < 10
    assert not secret.with_name("relay.secret.task").exists()


@pytest.mark.parametrize("text", ["", "token-7", "token-7 zz", "\xe9"])
def test_a_file_that_was_not_written_whole_is_left_alone(secret, text):
    secret.with_name("relay.secret.task").write_text(text)
    assert PendingTask(secret).left_behind() is None
