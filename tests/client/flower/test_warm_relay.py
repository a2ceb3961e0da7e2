"""What the warm relay and the short-polling SuperNode lean on, and what they refuse."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.agent.service import serving
from client.agent.socket_call import AGENT_AWAY, AgentRefusalError, call_agent
from client.flower.flower_app import INLINE_BYTES, pack, unpack
from client.flower.relay import Relay
from client.flower.supernode import BUSY_S, LONGEST_S, SHORTEST_S, ShortSleep
from common.errors import ErrorCode
from common.protocol.protocol import StatusReply, StatusRequest
from server.flower.bundle import build_bundle, bundle_digest


class Echo:
    def status(self, request):
        return StatusReply(site_id="site-a", state="idle", run_id=request.run_id)


def test_node_looks_often_after_a_message_and_less_later():
    assert ShortSleep.idle_s(0) == ShortSleep.idle_s(BUSY_S) == SHORTEST_S
    assert SHORTEST_S < ShortSleep.idle_s(2 * BUSY_S) < LONGEST_S
    assert ShortSleep.idle_s(1e6) == LONGEST_S
    assert ShortSleep.idle_s(0, look_s=0.01) == SHORTEST_S
    assert ShortSleep.idle_s(0, look_s=0.1) == pytest.approx(0.7)  # an eighth of its time
    assert ShortSleep.idle_s(0, look_s=5) == LONGEST_S
    sleeper = ShortSleep()
    started = time.monotonic()
    sleeper.sleep(3)
    sleeper.sleep(0.5)
    assert 0.15 < time.monotonic() - started < 1.0
    assert sleeper.monotonic() >= started


def answer_to(bundle, allowed, tmp_path):
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
    (tmp_path / "allowed").write_text(allowed)
    (tmp_path / "secret").write_bytes(b"secret")
    relay = Relay("127.0.0.1:9", tmp_path / "secret", tmp_path / "allowed")
    config = {"agent-socket": str(tmp_path / "agent.sock")}
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    message = Message(pack("status", *StatusRequest(run_id="r").encode()), 1, "query")
    message.metadata.__dict__["_message_id"] = "m"
    tmp_path.chmod(0o700)
    with serving(Echo(), tmp_path / "agent.sock"):
        return relay._answer(message, context, bundle).content


def test_allowed_bundle_is_relayed(tmp_path):
    content = answer_to(build_bundle(), bundle_digest() + "\n", tmp_path)
    reply = StatusReply.decode(*unpack(content)[1:])
    assert reply.run_id == "r"


@pytest.mark.parametrize("kind", ["not allowed", "not a bundle"])
def test_other_bundle_is_answered_with_its_code(kind, tmp_path):
    bundle = build_bundle() if kind == "not allowed" else b"import os"
    content = answer_to(bundle, "0" * 64, tmp_path)
    assert dict(content.config_records["tumorboard"]) == {"code": ErrorCode.BUNDLE}


@pytest.mark.parametrize("size", [0, INLINE_BYTES, INLINE_BYTES + 1])
def test_payload_passes_inside_the_record_or_beside_it(size):
    payload = bytes(size)
    content = pack("train", "{}", payload)
    assert bool(content.array_records) == (size > INLINE_BYTES)
    assert unpack(content) == ("train", "{}", payload)


def test_call_waits_for_an_agent_that_restarts(tmp_path):
    tmp_path.chmod(0o700)
    socket = tmp_path / "agent.sock"
    stop = threading.Event()

    def later():
        time.sleep(0.6)
        with serving(Echo(), socket):
            stop.wait(20)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        header, payload = call_agent(socket, "status", *StatusRequest(run_id="r").encode())
        assert StatusReply.decode(header, payload).run_id == "r"
    finally:
        stop.set()
        thread.join()


def test_agent_that_stays_away_has_a_code_of_its_own(tmp_path):
    started = time.monotonic()
    with pytest.raises(AgentRefusalError) as caught:
        call_agent(tmp_path / "no.sock", "status", "{}", b"", patience_s=0.5)
    assert caught.value.code == AGENT_AWAY == ErrorCode.AGENT_AWAY
    assert time.monotonic() - started < 10


def test_call_is_made_again_when_the_agent_dies_in_the_middle(tmp_path):
    tmp_path.chmod(0o700)
    socket, calls = tmp_path / "agent.sock", []

    class Dies(Echo):
        def status(self, request):
            calls.append(1)
            return super().status(request)

    def handler(frame, context):
        calls.append(0)
        time.sleep(0.4)
        context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    server = grpc.server(ThreadPoolExecutor(2))
    method = grpc.unary_unary_rpc_method_handler(handler)
    handlers = grpc.method_handlers_generic_handler("tumorboard.SiteAgent", {"status": method})
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    done = []
    thread = threading.Thread(
        target=lambda: done.append(call_agent(socket, "status", *StatusRequest().encode()))
    )
    thread.start()
    while not calls:
        time.sleep(0.02)
    server.stop(None).wait()
    socket.unlink(missing_ok=True)
    with serving(Dies(), socket):
        thread.join(30)
    assert len(done) == 1
    assert calls[-1] == 1


ENDED = """
import threading, time
import client.flower.supernode as supernode

def loop_ends(clock):
    threading.Thread(target=time.sleep, args=(60,)).start()
    {how}

supernode.run_supernode = loop_ends
supernode.main()
"""


@pytest.mark.parametrize("how", ["return", "raise OSError('line broken')"])
def test_node_whose_loop_has_ended_ends_though_its_threads_live(how):
    """Else it would say that it serves, and nobody would start it again."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ENDED.format(how=how)], timeout=50, check=False)
    assert done.returncode == 1
    assert time.monotonic() - started < 40
