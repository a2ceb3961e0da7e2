"""The agent as a real process behind a real Unix socket."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import pytest
from tiny_consortium import tiny_study

from client.agent.service import (
    MAX_SOCKET_PATH,
    ask_agent,
    check_socket_path,
    is_healthy,
    serving,
)
from client.agent.socket_call import CHUNK_BYTES, SERVICE, AgentRefusalError, from_frame, to_frame
from client.site.identity import create_identity
from common.contract import canonical_json
from common.errors import ConfigError, ErrorCode
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.protocol import HandshakeRequest, StatusReply, StatusRequest, TrainRequest
from common.trust.provenance import code_digest
from common.trust.site_proof import is_proven, new_challenge
from common.wire import arrays_digest

SCRIPT = """
import sys
from pathlib import Path
from client.agent.service import serve
from tiny_consortium import tiny_agents, tiny_study

folder = Path(sys.argv[1])
agent = tiny_agents(tiny_study(), folder / "sites")["site-a"]
serve(agent, folder / "run" / "agent.sock")
"""


@pytest.fixture
def short_folder():
    """Paths of Unix sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="tb") as folder:
        yield Path(folder)


def start(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while not is_healthy(folder / "run" / "agent.sock", timeout_s=0.5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_real_process_is_narrow_and_survives_a_kill(short_folder):
    study = tiny_study()
    socket = short_folder / "run" / "agent.sock"
    arrays = to_arrays(build_model(study))
    train = TrainRequest(run_id="run-1", round=1, model_digest=arrays_digest(arrays))
    train = train.model_copy(update={"arrays": arrays})
    identity = create_identity(short_folder / "sites" / "site-a" / "private" / "identity.key")
    process = start(short_folder)
    try:
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert ask_agent(socket, "status", StatusRequest()).state == "idle"
        challenge = new_challenge()
        told = ask_agent(socket, "status", StatusRequest(challenge=challenge))
        assert is_proven(identity, "site-a", challenge, told.proof)
        assert not is_proven(identity, "site-a", new_challenge(), told.proof)
        with pytest.raises(AgentRefusalError) as caught:
            ask_agent(socket, "train", train)
        assert caught.value.code == ErrorCode.PROTOCOL
        reply = ask_agent(
            socket,
            "handshake",
            HandshakeRequest(
                run_id="run-1",
                study_json=canonical_json(study.model_dump(mode="json")),
                study_digest=study.digest(),
                code_digest=code_digest(),
            ),
        )
        assert reply.accepted
        first = ask_agent(socket, "train", train)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_healthy(socket, timeout_s=0.5)
        process = start(short_folder)  # a stale socket file is in the way, and is replaced
        again = ask_agent(socket, "train", train)
        assert arrays_digest(again.arrays) == arrays_digest(first.arrays)
        process.terminate()
        assert process.wait(timeout=20) == 0
        assert not socket.exists()
    finally:
        process.kill()
        process.wait()


class Echo:
    """An agent that answers status only."""

    def __init__(self):
        self.busy = threading.Event()

    def status(self, request):
        if request.run_id == "fails":
            raise RuntimeError("patient Erika Mustermann")
        return StatusReply(site_id="site-a", state="idle")


@pytest.fixture
def echo(short_folder):
    socket = short_folder / "run" / "agent.sock"
    with serving(Echo(), socket):
        yield socket


def raw_call(socket, method, frame):
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        return channel.unary_unary(f"/{SERVICE}/{method}")(frame, timeout=5)


def test_error_text_never_crosses_the_socket(echo):
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(echo, "status", to_frame(*StatusRequest(run_id="fails").encode()))
    assert caught.value.details() == ErrorCode.INTERNAL
    assert "Mustermann" not in str(caught.value)


@pytest.mark.parametrize("frame", [b"", b"abc", b"\xff" * 8, b"\0" * 7 + b"\x05ab"])
def test_truncated_frame_is_refused_with_a_code(echo, frame):
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(echo, "status", frame)
    assert caught.value.details() == ErrorCode.PAYLOAD


@pytest.mark.parametrize("method", ["_open", "__init__", "shell", "site_id"])
def test_only_methods_of_the_protocol_exist(echo, method):
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(echo, method, to_frame("{}", b""))
    assert caught.value.details() == ErrorCode.PROTOCOL


def test_second_agent_on_the_same_socket_is_refused(echo):
    with pytest.raises(ConfigError, match="cannot be used"), serving(Echo(), echo):
        pass
    assert is_healthy(echo)


def test_folder_that_others_may_enter_is_refused(short_folder):
    folder = short_folder / "open"
    folder.mkdir(mode=0o755)
    with pytest.raises(ConfigError), serving(Echo(), folder / "agent.sock"):
        pass


def test_path_that_is_too_long_is_refused(short_folder):
    with pytest.raises(ConfigError), serving(Echo(), short_folder / ("x" * 120) / "agent.sock"):
        pass


def test_the_longest_path_that_the_system_takes_works(short_folder):
    short_folder.chmod(0o700)
    socket = short_folder / ("x" * (MAX_SOCKET_PATH - len(str(short_folder)) - 1))
    with serving(Echo(), socket):
        assert is_healthy(socket)
    with pytest.raises(ConfigError, match="cannot be used"):
        check_socket_path(socket.with_name(f"{socket.name}y"))


def test_frames_round_trip():
    assert from_frame(to_frame('{"ü": 1}', b"\x00\xff")) == ('{"ü": 1}', b"\x00\xff")


def test_large_frames_are_read_one_at_a_time_and_small_calls_pass_by(short_folder):
    """Eight frames of the largest size would else fill the memory of a hospital's machine."""
    socket, go = short_folder / "agent.sock", threading.Event()
    read: dict[str, int] = {"first": 0, "second": 0}

    def chunks(name):
        for number in range(12):
            if name == "first" and number == 4:
                go.wait(20)
            read[name] = number
            yield bytes(CHUNK_BYTES)

    def send(name):
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            call = channel.stream_unary(f"/{SERVICE}/train")
            with pytest.raises(grpc.RpcError):  # zeros are no message
                call(chunks(name), timeout=60)

    with serving(Echo(), socket):
        threads = [threading.Thread(target=send, args=[name]) for name in read]
        threads[0].start()
        while read["first"] < 3:
            time.sleep(0.01)
        threads[1].start()
        assert is_healthy(socket, timeout_s=10)
        time.sleep(0.5)
        assert read["second"] < 11  # it waits; gRPC has taken in a few chunks, and no more
        go.set()
        for thread in threads:
            thread.join(60)
    assert read == {"first": 11, "second": 11}
