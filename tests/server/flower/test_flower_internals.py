"""What the coordinator replaces or leans on in Flower, uvicorn and ssl: on the real ones."""

import inspect
import socket
import ssl
import sys
import time
from base64 import b64encode
from dataclasses import fields
from datetime import UTC, datetime
from importlib import import_module

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flower_processes import listens, processes, wait_for
from flwr.app import Message, RecordDict
from flwr.cli.auth_plugin import get_cli_plugin_class
from flwr.cli.typing import SuperLinkConnection
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore import constant
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink import main as superlink
from flwr.superlink.grid import http_grid
from joined_consortium import join, make_consortium, make_hospital
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from client.site.enrol_request import public_keys
from common.errors import ErrorCode, RunError
from common.trust.audit_log import read_audit
from server.consortium.provision_roster import revoke
from server.flower import flower_internals
from server.flower.flower_commands import (
    register_node,
    registered_nodes,
    start_run,
    stop_run,
)
from server.flower.flower_internals import (
    CONTROL,
    EXTENSIONS,
    FLEET,
    KEY_HEADER,
    KEY_REFUSED,
    READS,
    RUNTIME,
    SHORT_WAITS,
    STAMP_HEADER,
    STAMP_VALID_S,
    begin_server_task,
    interface_paths,
    number_message,
    offer_middleware,
    shorten_waits,
)
from server.flower.guarded_superlink import OPEN
from server.flower.node_enrolment import NodeEnrolment
from server.flower.superlink import server_processes

PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}
RESPONSES = {"/v1/runtime/responses"}
LOOKS = {
    *("list-runs", "list-run-series", "get-run-series", "list-run-series-events", "stream-logs"),
    *("stream-run-events", "pull-artifacts", "list-automations", "get-login-details"),
    *("get-auth-tokens", "refresh-auth-tokens", "list-connectors", "list-nodes"),
    *("list-federations", "list-apps", "list-app-associations", "show-federation"),
    "list-invitations",
}
"""Control calls of Flower 1.41 that change nothing; all others go into the audit log."""


def test_late_content_is_looked_for_soon(monkeypatch):
    pull = http_grid.pull_objects
    assert pull is inflatable_utils.pull_objects
    assert constant.PULL_INITIAL_BACKOFF >= 1, "Flower looks sooner by itself: shorten_waits can go"
    monkeypatch.setattr(pull, "__kwdefaults__", dict(pull.__kwdefaults__))
    shorten_waits()
    assert set(SHORT_WAITS) <= set(inspect.signature(pull).parameters)
    tries = iter([inflatable_utils.ObjectUnavailableError("a")] * 2)

    def look(_):
        error = next(tries, None)
        if error is not None:
            raise error
        return b"there"

    started = time.monotonic()
    assert pull(["a"], look) == {"a": b"there"}
    assert time.monotonic() - started < 0.5


def test_flowers_own_command_can_still_send_no_secret():
    with pytest.raises(ValueError, match="Unsupported"):
        get_cli_plugin_class("tumorboard")
    assert not [f.name for f in fields(SuperLinkConnection) if "header" in f.name]


@pytest.fixture
def stock(monkeypatch):
    """Flower's SuperLink in this process, as it comes."""
    monkeypatch.delitem(sys.modules, EXTENSIONS, raising=False)
    return superlink.create_app()


def test_flowers_control_interface_is_open_and_its_hook_puts_the_guard_around_it(
    stock, monkeypatch
):
    ask = {"content": b"", "headers": PROTOBUF}
    assert TestClient(stock).post(f"{CONTROL}list-nodes", **ask).status_code == 200

    class Refuse:
        def __init__(self, app):
            pass

        async def __call__(self, scope, receive, send):
            await PlainTextResponse("guarded", 403)(scope, receive, send)

    monkeypatch.setitem(sys.modules, EXTENSIONS, None)
    offer_middleware(Middleware(Refuse))
    refused = TestClient(superlink.create_app()).post(f"{CONTROL}list-nodes", **ask)
    assert (refused.status_code, refused.text) == (403, "guarded")


def test_every_path_and_code_of_the_interface_is_known(stock):
    paths = set(stock.openapi()["paths"])
    own = {"/health", "/docs", "/openapi.json"}
    assert all(path.startswith((FLEET, RUNTIME, CONTROL)) for path in paths - own), paths
    assert OPEN & paths == {"/health"}
    for name, prefix in (("control", CONTROL), ("runtime", RUNTIME)):
        assert set(interface_paths(name)) == {p for p in paths if p.startswith(prefix)} - RESPONSES
    control = {path.removeprefix(CONTROL) for path in paths if path.startswith(CONTROL)}
    assert {word for word in control if word.startswith(READS)} == LOOKS
    assert {
        ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED,
        ApiErrorCode.FLEET_SUPERNODE_UNREGISTRATION_DISABLED,
        ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED,
    } == KEY_REFUSED
    assert (KEY_HEADER, STAMP_HEADER) == (constant.FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER)
    assert STAMP_VALID_S == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


def test_flower_takes_a_signed_request_twice(stock):
    """Else the guard need not remember them."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    state = stock.state.linkstate_factory.state()
    node = state.create_node("owner", "lab", public, 30.0)
    state.activate_node(public, 30.0)
    stamp = datetime.now(UTC).isoformat()
    headers = PROTOBUF | {
        KEY_HEADER: b64encode(public).decode(),
        STAMP_HEADER: stamp,
        constant.FLEET_HTTP_SIGNATURE_HEADER: b64encode(
            sign_message(key, stamp.encode("ascii"))
        ).decode(),
    }
    body = PullMessagesRequest(node=Node(node_id=node)).SerializeToString()
    for _ in range(2):
        reply = TestClient(stock).post(f"{FLEET}pull-messages", content=body, headers=headers)
        assert reply.status_code == 200


def test_uvicorn_takes_a_maker_of_tls_contexts_which_flower_does_not_use():
    assert "ssl_context_factory" in inspect.signature(uvicorn.run).parameters
    module = import_module("flwr.superlink.cli.flower_superlink")
    assert "uvicorn.run(" in inspect.getsource(module)
    assert "ssl_context_factory" not in inspect.getsource(module)
    assert not [name for name in dir(ssl.SSLContext) if "msg" in name and name[0] != "_"]


def test_messages_of_one_process_get_what_flowers_engines_would_give_them(monkeypatch):
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)
    with pytest.raises(RuntimeError, match="not set"):
        Message(RecordDict(), 1, "query")
    begin_server_task()
    message = Message(RecordDict(), 1, "query")
    assert (message.metadata.run_id, message.metadata.message_id) == (1, "")
    number_message(message, "m")
    reply = Message(RecordDict(), reply_to=message)
    assert reply.metadata.reply_to_message_id == "m"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The consortium of a hospital, and its guarded SuperLink, running."""
    folder = tmp_path_factory.mktemp("served")
    consortium, policy = make_consortium(folder), make_hospital(folder, "a")
    join(consortium, policy, folder)
    with processes(folder) as start:
        link = start(*server_processes(consortium)[0][0].command)
        port = int(consortium.consortium().listen.rpartition(":")[2])
        wait_for(lambda: listens(port) or link.poll() is not None, 60)
        assert link.poll() is None, link.log.read_text()
        yield consortium, policy, folder


def test_the_guarded_superlink_knows_the_keys_of_the_roster_and_no_others(served):
    consortium, policy, folder = served
    own = public_keys(policy).node_key
    assert registered_nodes(consortium) == {}
    stranger = make_hospital(folder, "stranger")
    register_node(consortium, "stranger", public_keys(stranger).node_key)
    enrolment = NodeEnrolment(consortium)
    enrolment.update()
    assert set(registered_nodes(consortium)) == {own}
    join(consortium, make_hospital(folder, "b"), folder)
    enrolment.update()
    assert len(registered_nodes(consortium)) == 2
    revoke(consortium, "b", "left")
    enrolment.update()
    assert set(registered_nodes(consortium)) == {own}
    done = [r.facts["path"] for r in read_audit(consortium.audit) if r.event == "control_called"]
    assert {f"{CONTROL}register-node", f"{CONTROL}unregister-node"} <= set(done)


def test_a_run_is_started_and_stopped_and_flowers_own_words_explain_a_refusal(served):
    consortium, _, _ = served
    run = start_run(consortium, {"study": "s.yaml", "run-dir": "r"})
    stop_run(consortium, run)
    with pytest.raises(RunError, match="did not stop run") as caught:
        stop_run(consortium, run)
    assert str(ApiErrorCode.RUN_ALREADY_FINISHED.value) in caught.value.why
    with pytest.raises(RunError, match="did not start a run"):
        start_run(consortium, {"no-such-key": "x"})
    with pytest.raises(RunError, match="did not start a run"):
        start_run(consortium, {}, bundle=b"no bundle")


def test_without_the_secret_or_the_server_nothing_is_done(served, tmp_path):
    consortium, _, _ = served
    with pytest.raises(RunError) as caught:
        registered_nodes(make_consortium(tmp_path))
    assert caught.value.code == ErrorCode.TRANSPORT
    client = flower_internals.ControlClient(
        consortium.consortium().listen, consortium.ca_cert.read_bytes(), "00" * 32
    )
    with pytest.raises(Exception, match="403"):
        client.nodes()
    client.close()


def test_a_caller_that_distrusts_the_certificate_is_written_down(served):
    consortium, _, _ = served
    host, _, port = consortium.consortium().listen.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(raw, server_hostname=host)

    def alerts():
        records = read_audit(consortium.audit)
        return [r.facts.get("said") for r in records if r.code == ErrorCode.CERTIFICATE]

    wait_for(lambda: alerts() == ["unknown_ca"], 20)
