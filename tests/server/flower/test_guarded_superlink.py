"""The guard before the SuperLink: what it refuses, what it lets pass, what it writes down."""

import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from joined_consortium import join, make_consortium, make_hospital
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from client.site.identity import load_node_key, node_key_path
from common.errors import ErrorCode
from common.trust.audit_log import read_audit
from server.consortium.provision_roster import revoke
from server.flower.flower_internals import CONTROL_HEADER
from server.flower.guarded_superlink import KEPT_S, Guard, RequestHistory
from server.flower.refusal_log import MOST_A_MINUTE, Caller, RefusalLog

PULL = "/v1/fleet/pull-messages"


class Notes:
    """What the guard wants written down."""

    def __init__(self):
        self.callers = []

    def note(self, caller):
        self.callers.append(caller)

    def last(self):
        return self.callers[-1].event, self.callers[-1].code, self.callers[-1].said


class SuperLink:
    """Answers as it is told to."""

    def __init__(self):
        self.status, self.body = 200, {}

    async def answer(self, _request):
        return JSONResponse(self.body, self.status)


@pytest.fixture
def guarded(tmp_path):
    link, notes, secret = SuperLink(), Notes(), tmp_path / "secret"
    secret.write_bytes(b"\x07" * 32)
    app = Starlette(routes=[Route("/{path:path}", link.answer, methods=["GET", "POST"])])
    return TestClient(Guard(app, log=notes, secret=secret)), link, notes


def signed(stamp=None):
    stamp = stamp or datetime.now(UTC).isoformat()
    return {"flwr-public-key": b64encode(b"key").decode(), "flwr-timestamp": stamp}


def test_a_signed_request_counts_once(guarded):
    client, _, notes = guarded
    headers = signed()
    assert client.post(PULL, headers=headers).status_code == 200
    assert notes.callers == []
    again = client.post("/v1/fleet/push-messages", headers=headers)
    assert (again.status_code, again.json()) == (425, {"detail": "TB531"})
    assert notes.last() == ("caller_refused", ErrorCode.REPLAYED, "425")
    assert notes.callers[-1].path == "/v1/fleet/push-messages"
    assert notes.callers[-1].node_key == b"key"
    assert client.post(PULL, headers=signed()).status_code == 200


def test_a_false_signature_does_not_use_up_the_stamp_of_the_true_one(guarded):
    client, link, notes = guarded
    headers = signed()
    link.status = 401
    assert client.post(PULL, headers=headers).status_code == 401
    assert notes.last() == ("caller_refused", ErrorCode.NODE_KEY, "401")
    link.status = 200
    assert client.post(PULL, headers=headers).status_code == 200


def test_what_was_signed_before_the_start_is_signed_anew(guarded):
    client, _, notes = guarded
    minute_ago = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    assert client.post(PULL, headers=signed(minute_ago)).status_code == 503  # it is tried again
    assert notes.last()[1] == ErrorCode.REPLAYED
    for refused_by_flower in (datetime.now(UTC) - timedelta(seconds=KEPT_S + 5)).isoformat(), "x":
        assert client.post(PULL, headers=signed(refused_by_flower)).status_code == 200


def test_seen_stamps_are_kept_as_long_as_they_count(monkeypatch):
    seen, now = RequestHistory(), time.monotonic()
    assert not seen.is_copy("a", "1")
    assert not seen.is_copy("b", "1")
    monkeypatch.setattr(time, "monotonic", lambda: now + KEPT_S - 1)
    assert seen.is_copy("a", "1")
    monkeypatch.setattr(time, "monotonic", lambda: now + KEPT_S + 1)
    assert not seen.is_copy("a", "1")


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/docs", "/", "/v1/controlx", "/v1/fleet"]
)
def test_only_the_coordinator_reaches_its_interface(guarded, path):
    client, link, notes = guarded
    link.status = 404
    if path == "/v1/fleet":  # the doctors ask for it
        assert client.get(path).status_code == 404
        assert notes.callers == []
        return
    for headers in {}, {CONTROL_HEADER: "00" * 32}, {CONTROL_HEADER: ""}:
        refused = client.post(path, headers=headers)
        assert (refused.status_code, refused.json()) == (403, {"detail": "TB532"})
    assert notes.last() == ("caller_refused", ErrorCode.INTERFACE, "403")
    link.status = 200
    assert client.post(path, headers={CONTROL_HEADER: "07" * 32}).status_code == 200


def test_without_its_file_nobody_has_the_secret(guarded, tmp_path):
    client, _, _ = guarded
    (tmp_path / "secret").unlink()
    assert client.post("/v1/control/list-runs", headers={CONTROL_HEADER: ""}).status_code == 403


def test_what_changes_something_is_written_down(guarded):
    client, _, notes = guarded
    key = {CONTROL_HEADER: "07" * 32}
    client.post("/v1/control/list-runs", headers=key)
    assert notes.callers == []
    for path in "/v1/control/start-run", "/v1/control/archive-federation", "/v1/control/unheard-of":
        client.post(path, headers=key)
        assert notes.last() == ("control_called", "", "")
        assert notes.callers[-1].path == path


@pytest.mark.parametrize(
    ("path", "status", "flower", "code"),
    [
        ("/v1/fleet/activate-node", 412, 2004, ErrorCode.NODE_KEY),
        (PULL, 400, 1003, ErrorCode.PROTOCOL),
        ("/v1/fleet/nothing", 404, None, ErrorCode.INTERFACE),
        ("/v1/runtime/get-nodes", 401, 1008, ErrorCode.INTERFACE),
        (PULL, 403, 2007, None),  # the run is over
        (PULL, 500, None, None),
    ],
)
def test_what_flower_refuses_is_written_down(guarded, path, status, flower, code):
    client, link, notes = guarded
    link.status, link.body = status, {"code": flower, "detail": "x"}
    assert client.post(path, headers=signed()).status_code == status
    if code is None:
        assert notes.callers == []
    else:
        assert notes.last() == ("caller_refused", code, str(flower or status))


@pytest.fixture
def consortium(tmp_path):
    return make_consortium(tmp_path)


def written(consortium, count):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [r for r in read_audit(consortium.audit) if r.event == "caller_refused"]
        if len(found) >= count:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{len(found)} lines")


def test_a_line_names_the_hospital_of_a_revoked_key(consortium, tmp_path):
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    policy = make_hospital(tmp_path, "a")
    join(consortium, policy, tmp_path)
    revoke(consortium, "a", "left")
    public = load_node_key(node_key_path(policy.identity_key)).public_key()
    shown = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    log = RefusalLog(consortium)
    log.note(Caller("caller_refused", "TB530", PULL, "10.0.0.7", shown, "401"))
    log.note(Caller("caller_refused", "TB530", PULL, "10.0.0.7", b"no key", "401"))
    known, unknown = written(consortium, 2)
    assert (known.site, known.code, known.facts["address"]) == ("a", "TB530", "10.0.0.7")
    assert unknown.site == ""
    assert known.facts["node_key_digest"] != unknown.facts["node_key_digest"]


def drained(log, consortium):
    """Wait until everything noted so far was dealt with: what is done is never left out."""
    before = sum(r.event == "control_called" for r in read_audit(consortium.audit))
    log.note(Caller("control_called", path="/v1/control/start-run"))
    deadline = time.monotonic() + 30
    while sum(r.event == "control_called" for r in read_audit(consortium.audit)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_flood_is_counted_and_cannot_fill_the_disk(consortium, monkeypatch):
    log = RefusalLog(consortium)
    one = Caller("caller_refused", "TB532", "/v1/control/x", "10.0.0.7")
    monkeypatch.setattr("server.flower.refusal_log.REPEAT_S", 1000.0)
    for _ in range(50):
        log.note(one)
    drained(log, consortium)
    assert len(written(consortium, 1)) == 1
    monkeypatch.setattr("server.flower.refusal_log.REPEAT_S", 0.0)
    log.note(one)
    assert written(consortium, 2)[1].facts["repeats"] == 49
    for number in range(MOST_A_MINUTE + 50):
        log.note(Caller("caller_refused", "TB532", f"/v1/control/{number}"))
    drained(log, consortium)
    assert len(written(consortium, 1)) == MOST_A_MINUTE
