"""The audit log against everything that can be done to a file."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from typer.testing import CliRunner

from common.commands.audit_cli import app
from common.contract import canonical_json, sha256_hex
from common.errors import ErrorCode, LedgerError
from common.trust.audit_log import AuditLog, head_path, read_audit
from common.trust.signature import public_half

KEY = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "private" / "audit.jsonl"


@pytest.fixture
def written(path):
    log = AuditLog(path, "site-a", KEY)
    for number in range(5):
        log.append("call", run="run-1", round=number, reply_digest="ab" * 32)
    return path


def test_lines_verify_by_hand(written):
    """Written out from the format: SHA-256 and Ed25519 of the cryptography library."""
    previous = "0" * 64
    for number, line in enumerate(written.read_text().splitlines()):
        record = json.loads(line)
        signature, digest = record.pop("signature"), record.pop("sha256")
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        assert sha256_hex(text) == digest
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(record["key"]))
        public.verify(bytes.fromhex(signature), f'tumorboard audit v1\n"{digest}"'.encode())
        assert (record["sequence"], record["previous"]) == (number, previous)
        previous = digest
    assert [r.round for r in read_audit(written, public_half(KEY))] == [0, 1, 2, 3, 4]
    assert written.stat().st_mode & 0o077 == 0


def changed(lines):
    record = json.loads(lines[2])
    return [*lines[:2], canonical_json(record | {"round": 7}).encode() + b"\n", *lines[3:]]


def resealed(lines):
    """Changed by somebody who knows the format but not the key."""
    record = json.loads(lines[4])
    body = {k: v for k, v in record.items() if k not in ("sha256", "signature")} | {"round": 7}
    body["sha256"] = sha256_hex(canonical_json(body))
    return [*lines[:4], canonical_json(body | {"signature": record["signature"]}).encode() + b"\n"]


SPOILED = {
    "changed": changed,
    "resealed": resealed,
    "taken out": lambda lines: [*lines[:2], *lines[3:]],
    "swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
    "cut off": lambda lines: lines[:4],
    "repeated": lambda lines: [*lines, lines[4]],
    "emptied": lambda _lines: [],
    "spaced": lambda lines: [lines[0].replace(b",", b", ", 1), *lines[1:]],
}


def test_a_line_that_only_its_owner_can_write(written):
    """Changed and hashed anew, and the head with it: the signature alone tells."""
    lines = resealed(written.read_bytes().splitlines(keepends=True))
    written.write_bytes(b"".join(lines) + lines[4])  # not the last, which could be torn
    body = {"sequence": 4, "head": json.loads(lines[4])["sha256"]}
    head_path(written).write_text(canonical_json(body) + "\n")
    with pytest.raises(LedgerError, match="not signed by its owner"):
        read_audit(written)


@pytest.mark.parametrize("how", [name for name in SPOILED if name != "repeated"])
def test_a_spoiled_log_is_refused_by_reader_and_writer(written, how):
    lines = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(b"".join(SPOILED[how](lines)))
    with pytest.raises(LedgerError) as caught:
        read_audit(written)
    assert caught.value.code == ErrorCode.AUDIT_LOG
    with pytest.raises(LedgerError):
        AuditLog(written, "site-a", KEY).append("call")


def test_an_open_log_notices_a_cut_and_a_change_of_file(path):
    log = AuditLog(path, "site-a", KEY)
    for number in range(3):
        log.append("call", round=number)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(LedgerError):
        log.append("call")
    path.write_bytes(whole)
    log.append("call", round=3)
    assert len(read_audit(path)) == 4


def test_another_key_is_refused(written, tmp_path):
    with pytest.raises(LedgerError, match="not signed by its owner"):
        read_audit(written, "ab" * 32)
    with pytest.raises(LedgerError):
        AuditLog(written, "site-a", Ed25519PrivateKey.generate()).append("call")
    with pytest.raises(LedgerError, match="another side"):
        AuditLog(written, "site-b", KEY).append("call")


@pytest.mark.parametrize("kept", [1, 60, -1])
def test_a_torn_last_line_is_dropped_and_said(written, kept):
    """As a power cut leaves it: the line is not whole and the head does not name it."""
    head = head_path(written).read_bytes()
    size = written.stat().st_size
    AuditLog(written, "site-a", KEY).append("call", round=5)
    line = written.read_bytes()[size:]
    written.write_bytes(written.read_bytes()[:size] + line[:kept])
    head_path(written).write_bytes(head)
    assert len(read_audit(written)) == 5
    AuditLog(written, "site-a", KEY).append("call", round=5)
    events = [r.event for r in read_audit(written, public_half(KEY))]
    assert events == ["call"] * 5 + ["recovered", "call"]


def test_a_line_written_before_its_head_counts(written):
    head = head_path(written).read_bytes()
    AuditLog(written, "site-a", KEY).append("call", round=5)
    head_path(written).write_bytes(head)
    AuditLog(written, "site-a", KEY).append("call", round=6)
    assert [r.round for r in read_audit(written)] == [0, 1, 2, 3, 4, 5, 6]


def test_a_torn_first_line_is_no_log(path):
    path.parent.mkdir()
    path.write_bytes(b'{"actor":"si')
    with pytest.raises(LedgerError):
        read_audit(path)
    AuditLog(path, "site-a", KEY).append("call")
    assert [r.event for r in read_audit(path)] == ["recovered", "call"]


def write_many(path, worker):
    log = AuditLog(path, "coordinator", KEY)
    for number in range(20):
        log.append("round", round=number, worker=worker)


def test_processes_share_one_log(path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(path, k)) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    records = read_audit(path, public_half(KEY))
    assert len(records) == 60
    for k in range(3):
        assert [r.round for r in records if r.facts["worker"] == k] == list(range(20))


def test_what_is_appended_is_synced_before_append_returns(path, monkeypatch):
    synced, real = [], os.fsync

    def watched(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    AuditLog(path, "site-a", KEY).append("call")
    assert path in synced


def test_command_verifies_and_compares_key_and_head(written, tmp_path):
    def run(*options):
        return CliRunner().invoke(app, ["log", "verify", str(written), "--json", *options])

    (tmp_path / "key.pub").write_text(public_half(KEY) + "\n")
    told = json.loads(run("--key", str(tmp_path / "key.pub")).stdout)
    assert (told["lines"], told["key_compared"], told["events"]) == (5, True, {"call": 5})
    assert run("--head", told["head"]).exit_code == 0
    assert isinstance(run("--head", "ab" * 32).exception, LedgerError)
    assert isinstance(run("--key", "ab" * 32).exception, LedgerError)
    assert run("--key", "nonsense").exception.code == ErrorCode.CONFIG


def test_command_says_what_it_cannot_see(written):
    def said(*options):
        return CliRunner().invoke(app, ["log", "verify", str(written), *options]).stdout

    assert "no complete line" not in said()
    assert "--head." in said()
    assert "--head." not in said("--head", head_of(written))
    with written.open("ab") as stream:
        stream.write(b"added")
    assert "5 bytes after it are no complete line" in said()
    written.write_bytes(written.read_bytes().removesuffix(b"added"))
    written.with_name(f"{written.name}.head").unlink()
    assert "There is no audit.jsonl.head beside it." in said()


def head_of(path):
    return json.loads(path.with_name(f"{path.name}.head").read_bytes())["head"]
