"""The bell between SuperNode and relay, rung and heard by two processes."""

import subprocess
import sys
import threading
import time

import pytest

from client.flower.flower_internals import IDLE_S
from client.flower.relay_wakeup import Bell
from client.flower.supernode import ShortSleep, _secret

RING = """
import sys, time
from pathlib import Path
from client.flower.relay_wakeup import Bell
Bell(Path(sys.argv[1])).ring()
"""


@pytest.fixture
def secret(tmp_path):
    return tmp_path / "relay.secret"


def test_a_ring_of_another_process_wakes_the_listener(secret):
    bell = Bell(secret)
    bell.listen()
    assert not bell.wait(0.05)
    started = time.monotonic()
    ringer = threading.Thread(
        target=lambda: subprocess.run([sys.executable, "-c", RING, str(secret)], check=True)
    )
    ringer.start()
    assert bell.wait(30)
    assert time.monotonic() - started < 20
    ringer.join()
    assert not bell.wait(0.05)  # heard once; the writer's end is not heard at all


def test_rings_before_the_wait_are_heard_once_and_a_flood_blocks_nobody(secret):
    bell = Bell(secret)
    bell.listen()
    for _ in range(5000):
        Bell(secret).ring()
    assert bell.wait(0)
    assert not bell.wait(0.01)


def test_nobody_listening_is_no_trouble(secret):
    Bell(secret).ring()
    assert not list(secret.parent.iterdir())
    Bell(secret).listen()
    Bell(secret).ring()  # the pipe is there, its listener is not


def test_where_no_pipe_can_be_made_a_wait_is_a_short_sleep(secret):
    bell = Bell(secret.parent / "no" / "relay.secret")
    bell.listen()
    started = time.monotonic()
    assert not bell.wait(30)
    assert time.monotonic() - started < 10


def test_a_file_in_its_place_is_replaced_and_only_the_user_may_write(secret):
    secret.with_name("relay.secret.bell").write_text("left over")
    Bell(secret).listen()
    made = secret.with_name("relay.secret.bell").stat()
    assert made.st_mode & 0o777 == 0o600


def test_the_node_rings_while_it_waits_for_a_reply_and_only_then(secret):
    bell = Bell(secret)
    bell.listen()
    clock = ShortSleep(bell)
    clock.sleep(IDLE_S)
    assert not bell.wait(0)
    clock.sleep(0.5)
    assert bell.wait(0)


@pytest.mark.parametrize(
    "given", [["--superexec-auth-secret-file", "x"], ["--superexec-auth-secret-file=x"]]
)
def test_the_secret_is_found_among_flowers_arguments(given):
    found = _secret(["prog", "--superlink", "a:1", *given, "--insecure"])
    assert str(found) == "x"
    assert _secret(["prog", "--superlink", "a:1"]) is None
