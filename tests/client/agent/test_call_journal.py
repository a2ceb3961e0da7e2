"""The hospital writes down every call before its answer leaves."""

import json
import stat
import tempfile
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.agent.call_journal import CallJournal
from client.agent.dispatch import answer
from client.agent.service import ask_agent, is_healthy, serving
from client.agent.socket_call import SERVICE, AgentRefusalError, to_frame
from common.contract import sha256_hex
from common.errors import ErrorCode, PrivacyError
from common.process.event_log import close_events, write_events
from common.protocol.protocol import (
    HandshakeReply,
    HandshakeRequest,
    StatusReply,
    StatusRequest,
    TrainReply,
    TrainRequest,
)
from common.trust.audit_log import AuditLog, read_audit

PATIENT = "Erika Mustermann"
TRAIN = TrainRequest(run_id="run-1", round=3, model_digest="ab" * 32)


class Hospital:
    """Answers, refuses, or fails; every text names a patient."""

    def __init__(self):
        self.fails = None

    def train(self, request):
        if self.fails:
            raise self.fails
        return TrainReply(
            site_id="a", run_id="run-1", round=3, model_digest="ab" * 32, kind="delta", loss=0.5
        )

    def handshake(self, request):
        return HandshakeReply(
            site_id="a",
            accepted=False,
            refusal_code="TB503",
            code_digest="ab" * 32,
            study_digest="cd" * 32,
        )

    def status(self, request):
        return StatusReply(site_id="a", state="idle")


@pytest.fixture
def log(tmp_path):
    return AuditLog(tmp_path / "private" / "audit.jsonl", "a", Ed25519PrivateKey.generate())


def test_a_line_names_call_round_and_digests_and_no_patient(log, tmp_path):
    events = write_events(tmp_path / "private" / "agent.jsonl")
    hospital, journal = Hospital(), CallJournal("a", log)
    reply = answer(hospital, "train", *TRAIN.encode(), journal)
    hospital.fails = PrivacyError(f"{PATIENT} has no scan", code=ErrorCode.POLICY)
    with pytest.raises(AgentRefusalError):
        answer(hospital, "train", *TRAIN.encode(), journal)
    hospital.fails = RuntimeError(PATIENT)
    with pytest.raises(AgentRefusalError):
        answer(hospital, "train", *TRAIN.encode(), journal)
    odd = TRAIN.model_copy(update={"model_digest": f"{PATIENT} "})
    hospital.fails = PrivacyError(PATIENT, code=ErrorCode.POLICY)
    with pytest.raises(AgentRefusalError):
        answer(hospital, "train", *odd.encode(), journal)
    for method, header in (("shell", "{}"), ("train", '{"run_id": "Erika"'), ("train", PATIENT)):
        with pytest.raises(AgentRefusalError):
            answer(hospital, method, header, b"", journal)
    close_events(events)
    lines = read_audit(log.path)
    codes = ["", "TB504", "TB900", "TB504", "TB500", "TB505", "TB505"]
    assert [line.code for line in lines] == codes
    assert (lines[0].run, lines[0].round, lines[0].facts["method"]) == ("run-1", 3, "train")
    assert lines[0].facts["reply_digest"] == sha256_hex(reply[0].encode() + reply[1])
    assert lines[4].facts["method"] == "unknown"
    written = log.path.read_text() + (tmp_path / "private" / "agent.jsonl").read_text()
    assert "Erika" not in written
    printed = (tmp_path / "private/agent.jsonl").read_text().splitlines()
    shown = [json.loads(line) for line in printed]
    assert [event.get("code", "") for event in shown] == codes
    assert (shown[0]["site"], shown[0]["run"], shown[0]["round"]) == ("a", "run-1", 3)


def test_nothing_leaves_that_could_not_be_written_down(log):
    journal = CallJournal("a", log)
    answer(Hospital(), "train", *TRAIN.encode(), journal)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole.replace(b'"round":3', b'"round":4'))
    with pytest.raises(AgentRefusalError) as caught:
        answer(Hospital(), "train", *TRAIN.encode(), journal)
    assert caught.value.code == ErrorCode.AUDIT_LOG


def test_a_full_disk_keeps_the_answer_in_and_is_named(log, monkeypatch, caplog):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.storage.durable.os.write", full)
    with pytest.raises(AgentRefusalError) as caught:
        answer(Hospital(), "train", *TRAIN.encode(), CallJournal("a", log))
    assert caught.value.args == (ErrorCode.DISK_FULL,)
    assert caught.value.__context__ is None
    assert f"where: {log.path}" in caplog.text
    assert "fix:" in caplog.text


def test_a_refused_handshake_is_noted_and_a_status_is_not(log):
    request = HandshakeRequest(
        run_id="run-1", study_json="{}", study_digest="cd" * 32, code_digest="ab" * 32
    )
    journal = CallJournal("a", log)
    answer(Hospital(), "status", *StatusRequest().encode(), journal)
    answer(Hospital(), "handshake", *request.encode(), journal)
    assert [(line.facts["method"], line.code) for line in read_audit(log.path)] == [
        ("handshake", "TB503")
    ]


def test_socket_of_a_relay_under_another_user_is_for_the_group_alone(log):
    with tempfile.TemporaryDirectory(prefix="tb") as name:
        folder = Path(name) / "run"
        folder.mkdir(mode=0o750)
        socket = folder / "agent.sock"
        with serving(Hospital(), socket, journal=CallJournal("a", log), share=True):
            assert stat.S_IMODE(socket.stat().st_mode) == 0o660
            ask_agent(socket, "train", TRAIN)
    assert [line.event for line in read_audit(log.path)] == ["call"]


def test_calls_that_do_not_exist_and_broken_frames_leave_a_line(log):
    with tempfile.TemporaryDirectory(prefix="tb") as folder:
        socket = Path(folder) / "agent.sock"
        with (
            serving(Hospital(), socket, journal=CallJournal("a", log)),
            grpc.insecure_channel(f"unix:{socket}") as channel,
        ):
            for path in (f"/{SERVICE}/shell", "/other.Service/train", "/grpc.reflection/x"):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(path)(to_frame("{}", b""), timeout=10)
                assert caught.value.details() == ErrorCode.PROTOCOL
            for frame in (b"", b"\x00" * 9 + b"x", to_frame("{}", b"")[:-1]):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(f"/{SERVICE}/train")(frame, timeout=10)
                assert caught.value.details() == ErrorCode.PAYLOAD
            assert is_healthy(socket)
    told = [(r.code, r.facts["method"]) for r in read_audit(log.path) if r.event == "call"]
    assert told == [("TB500", "unknown")] * 3 + [("TB505", "train")] * 3
