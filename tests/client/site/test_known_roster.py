"""The known roster of a hospital: whatever it is handed, its version never goes down."""

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from joined_consortium import join, make_consortium, make_hospital
from typer.testing import CliRunner

from client.operate.cli import app
from client.site.enrol_connection import SiteConnection
from client.site.hospital_roster import HospitalRoster
from common.errors import ConfigError, ErrorCode, ProtocolError, TumorboardError
from common.trust.audit_log import AuditLog, read_audit
from common.trust.roster import Member, Roster, SignedRoster
from common.trust.signature import public_half
from server.consortium.provision_roster import revoke

OWN, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
RUNNER = CliRunner()


def member(number, status):
    return Member(
        site_id=f"site-{number}",
        identity=f"{number:064x}",
        node_key="ecdsa-sha2-nistp384 " + f"{number:0120d}",
        status=status,
        since="2026-01-01T00:00:00+00:00",
    )


ROSTERS = st.builds(
    lambda consortium, version, statuses: Roster(
        consortium=consortium,
        version=version,
        members=[member(number, status) for number, status in enumerate(statuses)],
    ),
    st.sampled_from(["lab", "lab", "lab", "other"]),
    st.integers(0, 6),
    st.lists(st.sampled_from(["admitted", "revoked"]), max_size=3),
)


@st.composite
def handed(draw):
    """A roster as anybody may hand it, and whether the coordinator signed it as it is."""
    key = draw(st.sampled_from([OWN, OWN, OWN, OTHER]))
    signed = SignedRoster.make(draw(ROSTERS), key)
    kind = draw(st.sampled_from(["whole"] * 4 + ["cut", "altered"]))
    if kind == "cut":
        return signed.text()[: draw(st.integers(0, 60))], False
    if kind == "altered":
        body = signed.model_dump(mode="json")
        body["roster"]["version"] += draw(st.integers(1, 3))
        return json.dumps(body), False
    return signed.text(), key is OWN


def hospital(folder):
    """A hospital that pins OWN and knows version 1."""
    connection = SiteConnection(folder / "connection")
    connection.root.mkdir()
    pinned = {
        "consortium": "lab",
        "site_id": "site-0",
        "superlink": "127.0.0.1:1",
        **dict.fromkeys(("bundle_digest", "ca_digest", "audit_key"), "ab" * 32),
        "roster_key": public_half(OWN),
    }
    connection.config.write_text(yaml.safe_dump(pinned))
    SignedRoster.make(Roster(consortium="lab", version=1), OWN).write(connection.roster_file)
    log = AuditLog(folder / "audit.jsonl", "site-0", OWN)
    return connection, HospitalRoster(connection, log), log


@settings(max_examples=60, deadline=None)
@given(st.lists(handed(), max_size=8))
def test_the_known_version_never_goes_down(rosters):
    with tempfile.TemporaryDirectory() as name:
        connection, roster, log = hospital(Path(name))
        known = roster.current()
        for text, genuine in rosters:
            try:
                answered = roster.update(text)
            except ProtocolError:
                answered = known
            now = connection.roster()
            assert now == roster.current() == answered
            assert (now.version > known.version and genuine) or now == known
            known = now
        taken = [r.facts["roster_version"] for r in read_audit(log.path)] if log.head() else []
        assert taken == sorted(set(taken))
        assert (taken or [1])[-1] == known.version


def test_two_who_take_rosters_at_once_wait_for_each_other(tmp_path):
    """The agent with version 2 and a command with version 3: the older one never comes last."""
    connection, roster, _ = hospital(tmp_path)
    second, third = (SignedRoster.make(Roster(consortium="lab", version=v), OWN) for v in (2, 3))
    with ThreadPoolExecutor(1) as agent:
        with connection.locked():
            late = agent.submit(roster.update, second.text())
            time.sleep(0.3)
            third.write(connection.roster_file)
        with pytest.raises(ProtocolError, match="older"):
            late.result()
    assert roster.current().version == 3


def test_a_kit_that_is_installed_later_counts_at_once(tmp_path):
    connection, roster, _ = hospital(tmp_path)
    config = connection.config.read_bytes()
    connection.config.unlink()
    newer = SignedRoster.make(Roster(consortium="lab", version=2), OWN).text()
    assert roster.update(newer) is None
    connection.config.write_bytes(config)
    assert roster.update(newer).version == 2


@pytest.fixture
def lab(tmp_path):
    """A consortium with hospital a; version 2."""
    consortium, policy = make_consortium(tmp_path), make_hospital(tmp_path, "a")
    join(consortium, policy, tmp_path)
    return consortium


def call(lab, *arguments):
    home = str(lab.root.parent / "a")
    return RUNNER.invoke(app, ["roster", "--site", home, *map(str, arguments)])


def test_command_shows_version_members_and_fingerprints(lab):
    shown = call(lab)
    assert shown.exit_code == 0
    known = lab.roster()
    for word in ("Roster of lab, version 2", "admitted", known.fingerprint):
        assert word in shown.stdout
    assert known.members[0].fingerprint in shown.stdout
    told = json.loads(call(lab, "--json").stdout)
    assert (told["version"], told["admitted"]) == (2, True)
    assert told["fingerprint"] == known.fingerprint
    assert told["members"][0]["identity"] == known.members[0].identity


def test_command_takes_a_newer_roster_and_no_other(lab, tmp_path):
    older = tmp_path / "older.json"
    older.write_bytes(lab.roster_file.read_bytes())
    join(lab, make_hospital(tmp_path, "b"), tmp_path)
    taken = call(lab, "--install", lab.roster_file)
    assert (taken.exit_code, "Taken over: version 3." in taken.stdout) == (0, True)
    again = call(lab, "--install", lab.roster_file)
    assert (again.exit_code, "This one is known here." in again.stdout) == (0, True)
    refused = call(lab, "--install", older).exception
    assert isinstance(refused, ProtocolError)
    assert (refused.code, refused.exit_status) == (ErrorCode.ROSTER, 4)
    assert "older" in refused.what
    changed = tmp_path / "changed.json"
    changed.write_text(lab.roster_file.read_text().replace('"version":3', '"version":4'))
    assert "not signed" in call(lab, "--install", changed).exception.what
    for wrong in (tmp_path / "none.json", tmp_path):
        error = call(lab, "--install", wrong).exception
        assert isinstance(error, TumorboardError)
        assert error.code == ErrorCode.ROSTER
    log = read_audit(tmp_path / "a" / "private" / "audit.jsonl")
    taken = [r.facts for r in log if r.event == "roster_taken"]
    assert [(f["roster_version"], f["source"]) for f in taken] == [(3, "by hand")]


def test_command_says_when_this_hospital_is_revoked(lab):
    revoke(lab, "a", "left")
    shown = call(lab, "--install", lab.roster_file)
    assert shown.exit_code == 1
    assert "a is revoked." in shown.stdout
    assert "left" in shown.stdout


def test_command_without_a_kit(tmp_path):
    make_hospital(tmp_path, "a")
    for arguments in ([], ["--install", str(tmp_path / "roster.json")]):
        done = RUNNER.invoke(app, ["roster", "--site", str(tmp_path / "a"), *arguments])
        assert isinstance(done.exception, ConfigError)
        assert done.exception.exit_status == 2
