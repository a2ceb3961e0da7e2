"""A hospital joins: request, admission, kit, installation; and everybody who must not."""

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from client.operate.cli import app as site_app
from client.site.enrol_connection import SiteConnection
from client.site.enrol_install import install_kit
from client.site.enrol_request import make_keys, public_keys, write_request
from client.site.identity import (
    create_identity,
    load_identity,
    load_node_key,
    node_key_path,
)
from client.site.site_folder import load_policy
from client.site.site_template import write_site_template
from common.errors import ConfigError, ErrorCode, ProtocolError
from common.trust.audit_log import read_audit
from common.trust.join_request import SignedJoinRequest, read_join_request
from common.trust.roster import Roster, SignedRoster, read_roster
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import provision
from server.consortium.provision_certificates import (
    make_authority,
)
from server.consortium.provision_kit import write_kit
from server.consortium.provision_roster import admit, revoke
from server.flower.bundle import bundle_digest
from server.operate.cli import app as server_app


@pytest.fixture
def consortium(tmp_path):
    """A provisioned consortium."""
    where = "127.0.0.1:8443"
    root = provision(tmp_path / "lab", name="lab", address=where, listen=where, sans=["tb.test"])
    return ConsortiumFolder.open(root)


@pytest.fixture
def hospital(tmp_path):
    """A maker of hospitals with keys; returns the policy."""

    def make(site_id="hospital-a"):
        write_site_template(tmp_path / site_id, site_id)
        policy = load_policy(tmp_path / site_id)
        make_keys(policy)
        return policy

    return make


def request_of(policy, tmp_path):
    path = tmp_path / f"{policy.site_id}.request.json"
    write_request(policy, "Hospital", path)
    return path


def install(policy, kit, tmp_path, fingerprint=None):
    target = SiteConnection.of_site(tmp_path / policy.site_id)
    return target, install_kit(policy, kit, target, fingerprint=fingerprint)


@pytest.fixture
def joined(consortium, hospital, tmp_path):
    """Consortium, an admitted hospital, and its kit."""
    policy = hospital()
    admit(consortium, request_of(policy, tmp_path))
    write_kit(consortium, policy.site_id, tmp_path / "kit", bundle_digest=bundle_digest())
    return consortium, policy, tmp_path / "kit"


def test_a_hospital_joins(joined, tmp_path):
    consortium, policy, kit = joined
    target, connection = install(policy, kit, tmp_path)
    assert target.roster().member("hospital-a").status == "admitted"
    assert connection.superlink == "127.0.0.1:8443"
    assert target.allowed_bundles.read_text().strip() == connection.bundle_digest
    assert all(os.access(target.gate / name, os.X_OK) for name in ("flwr-clientapp",))
    install(policy, kit, tmp_path, connection.fingerprint.upper())  # again, as told by telephone
    events = [r.event for r in read_audit(consortium.audit, consortium.audit_public_key())]
    assert events == ["provisioned", "admitted", "kit_written"]


def test_private_keys_are_private_and_stay(joined):
    consortium, policy, kit = joined
    secrets = [consortium.ca_key, consortium.roster_key, consortium.server_key]
    secrets += [
        consortium.audit_key,
        policy.identity_key,
        policy.identity_key.with_name("node.key"),
    ]
    assert [path.stat().st_mode & 0o777 for path in secrets] == [0o600] * 6
    sent = b"".join(path.read_bytes() for path in kit.rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in sent
    assert not any(path.read_bytes().strip() in sent for path in secrets)


def test_keys_are_never_overwritten(consortium, hospital):
    before = {path: path.read_bytes() for path in consortium.root.rglob("*.key")}
    with pytest.raises(ConfigError, match="already"):
        provision(consortium.root, name="x", address="a.test:1", listen="127.0.0.1:1", sans=[])
    consortium.config.unlink()  # a lost file does not open the way either
    with pytest.raises(ConfigError, match="already"):
        provision(consortium.root, name="x", address="a.test:1", listen="127.0.0.1:1", sans=[])
    assert before == {path: path.read_bytes() for path in consortium.root.rglob("*.key")}
    with pytest.raises(ConfigError, match="already"):
        make_keys(hospital())


def edit(path, *keys, value):
    data = json.loads(path.read_text())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("key", "value"),
    [("site_id", "hospital-b"), ("identity", "ab" * 32), ("made", "2001-01-01"), ("extra", 1)],
)
def test_an_altered_request_is_refused(consortium, hospital, tmp_path, key, value):
    path = request_of(hospital(), tmp_path)
    edit(path, "request", key, value=value)
    with pytest.raises(ProtocolError) as caught:
        admit(consortium, path)
    assert caught.value.code == ErrorCode.JOIN_REQUEST
    assert consortium.roster().members == []


@pytest.mark.parametrize("stolen", ["identity", "node_key"])
def test_a_key_of_somebody_else_is_refused(consortium, hospital, tmp_path, stolen):
    """Each key must sign: else a hospital could claim another's identity, or its SuperNode."""
    victim, thief = hospital("a"), hospital("b")
    request = read_join_request(request_of(thief, tmp_path))
    taken = getattr(read_join_request(request_of(victim, tmp_path)), stolen)
    identity = load_identity(thief.identity_key)
    node = load_node_key(node_key_path(thief.identity_key))
    claim = request.model_copy(update={stolen: taken})
    SignedJoinRequest.make(claim, identity, node).write(tmp_path / "claim.json")
    with pytest.raises(ProtocolError, match="not signed by its own"):
        admit(consortium, tmp_path / "claim.json")


@pytest.mark.parametrize("kept", ["identity.key", "node.key"])
def test_a_key_is_used_once(consortium, hospital, tmp_path, kept):
    policy = hospital("a")
    admit(consortium, request_of(policy, tmp_path))
    revoke(consortium, "a", "left")
    for path in policy.identity_key.parent.glob("*.key*"):
        if path.name != kept:
            path.unlink()
    if kept == "identity.key":
        make_keys(policy)
    else:
        create_identity(policy.identity_key)
    with pytest.raises(ProtocolError, match="used before"):
        admit(consortium, request_of(policy, tmp_path))


def test_a_second_admission_of_name_or_key_is_refused(consortium, hospital, tmp_path):
    path = request_of(hospital("a"), tmp_path)
    admit(consortium, path)
    with pytest.raises(ProtocolError, match="admitted already"):
        admit(consortium, path)
    revoke(consortium, "a", "left")
    with pytest.raises(ProtocolError, match="used before"):
        admit(consortium, path)
    roster = consortium.roster()
    assert (roster.version, [m.status for m in roster.members]) == (3, ["revoked"])


def test_a_revoked_hospital_with_new_keys_comes_back(consortium, hospital, tmp_path):
    policy = hospital("a")
    admit(consortium, request_of(policy, tmp_path))
    revoke(consortium, "a", "key lost")
    for path in policy.identity_key.parent.iterdir():
        path.unlink()
    make_keys(policy)
    admit(consortium, request_of(policy, tmp_path))
    roster = consortium.roster()
    assert [m.status for m in roster.members] == ["revoked", "admitted"]
    assert roster.member("a").status == "admitted"


def test_an_older_or_altered_roster_is_refused(joined, tmp_path):
    consortium, policy, kit = joined
    target, _ = install(policy, kit, tmp_path)
    known = target.roster()
    edit(target.roster_file, "roster", "version", value=9)
    with pytest.raises(ProtocolError, match="not signed"):
        target.roster()
    key = consortium.load_roster_key()
    SignedRoster.make(Roster(consortium="lab", version=1), key).write(target.roster_file)
    with pytest.raises(ProtocolError, match="older") as caught:
        read_roster(target.roster_file, consortium.roster_public_key(), known=known)
    assert caught.value.code == ErrorCode.ROSTER
    SignedRoster.make(Roster(consortium="lab", version=2), key).write(target.roster_file)
    with pytest.raises(ProtocolError, match="same version"):
        read_roster(target.roster_file, consortium.roster_public_key(), known=known)


def test_installing_goes_forward_only(joined, hospital, tmp_path):
    consortium, policy, kit = joined
    admit(consortium, request_of(hospital("b"), tmp_path))
    write_kit(consortium, policy.site_id, tmp_path / "newer", bundle_digest=bundle_digest())
    target, _ = install(policy, tmp_path / "newer", tmp_path)
    with pytest.raises(ProtocolError, match="older"):
        install(policy, kit, tmp_path)
    assert target.roster().version == 3


def spoil_ca(kit):
    (kit / "ca.crt").write_bytes(make_authority("lab").certificate_pem())


def spoil_roster_key(kit):
    data = yaml.safe_load((kit / "connection.yaml").read_text())
    (kit / "connection.yaml").write_text(yaml.safe_dump(data | {"roster_key": "ab" * 32}))


def spoil_name(kit):
    data = yaml.safe_load((kit / "connection.yaml").read_text())
    (kit / "connection.yaml").write_text(yaml.safe_dump(data | {"site_id": "hospital-b"}))


@pytest.mark.parametrize("spoil", [spoil_ca, spoil_roster_key, spoil_name])
def test_a_kit_whose_parts_do_not_fit_installs_nothing(joined, tmp_path, spoil):
    _, policy, kit = joined
    spoil(kit)
    with pytest.raises(ProtocolError) as caught:
        install(policy, kit, tmp_path)
    assert caught.value.code == ErrorCode.ROSTER
    assert not SiteConnection.of_site(tmp_path / policy.site_id).root.exists()


def test_a_whole_foreign_kit_needs_the_fingerprint(joined, tmp_path):
    """Somebody who makes everything anew, under the same names, is caught by telephone."""
    _consortium, policy, kit = joined
    _, true = install(policy, kit, tmp_path)
    where = "127.0.0.1:8443"
    root = provision(tmp_path / "fake", name="lab", address=where, listen=where, sans=[])
    fake = ConsortiumFolder.open(root)
    admit(fake, request_of(policy, tmp_path))
    write_kit(fake, policy.site_id, tmp_path / "fake-kit", bundle_digest=bundle_digest())
    for fingerprint in (None, true.fingerprint):
        with pytest.raises(ProtocolError):
            install(policy, tmp_path / "fake-kit", tmp_path, fingerprint)


def test_nobody_is_admitted_if_the_kit_cannot_be_written(consortium, hospital, tmp_path):
    path = request_of(hospital("a"), tmp_path)
    line = ["admit", str(consortium.root), str(path), "--kit", str(consortium.root)]
    assert CliRunner().invoke(server_app, line).exception.code == ErrorCode.CONFIG
    assert consortium.roster().members == []


def test_missing_files_are_named_as_such(joined, tmp_path):
    consortium, policy, _ = joined
    with pytest.raises(ConfigError, match="does not exist"):
        admit(consortium, tmp_path / "no.json")
    with pytest.raises(ConfigError, match="this folder holds no site kit"):
        install(policy, tmp_path / "no-kit", tmp_path)


def test_the_kit_of_a_revoked_hospital_is_not_written(joined, tmp_path):
    consortium, policy, _ = joined
    revoke(consortium, policy.site_id, "left")
    with pytest.raises(ConfigError, match="no admitted hospital"):
        write_kit(consortium, policy.site_id, tmp_path / "again", bundle_digest=bundle_digest())


def test_somebody_admitted_under_this_name_is_noticed(joined, hospital, tmp_path):
    _consortium, policy, kit = joined
    policy.identity_key.unlink()
    policy.identity_key.with_name("node.key").unlink()
    make_keys(policy)
    with pytest.raises(ProtocolError, match="other keys"):
        install(policy, kit, tmp_path)


def test_commands_from_nothing_to_an_installed_kit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(app, line):
        done = CliRunner().invoke(app, [*line.split(), "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    made = run(server_app, "provision lab --name lab --host fl.test --port 443 --san 192.0.2.7")
    assert made["address"] == "fl.test:443"
    assert made["listen"] == "127.0.0.1:8443"
    assert {"fl.test", "192.0.2.7", "localhost"} <= set(made["sans"])
    run(site_app, "init a --site-id a")
    keys = run(site_app, "keygen --site a")
    asked = run(site_app, "request --site a --out a.json")
    admitted = run(server_app, "admit lab a.json --kit a-kit")
    assert admitted["fingerprint"] == asked["fingerprint"]
    line = ["install-kit", "--site", "a", "--kit", "a-kit", "--json"]
    line += ["--fingerprint", admitted["kit_fingerprint"]]
    assert CliRunner().invoke(site_app, line, catch_exceptions=False).exit_code == 0
    assert read_audit(Path("a/private/audit.jsonl"))[-1].event == "kit_installed"
    listed = run(server_app, "roster lab")
    assert listed["members"][0]["identity"] == keys["public_key"]
    assert run(server_app, "provision lab --rotate")["certificate_days_left"] > 390
    gone = CliRunner().invoke(
        server_app, ["revoke", "lab", "a", "--reason", "left", "--json"], catch_exceptions=False
    )
    assert json.loads(gone.stdout)["roster_version"] == 3


def test_a_request_that_is_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ProtocolError) as caught:
        read_join_request(path)
    assert caught.value.code == ErrorCode.JOIN_REQUEST
    with pytest.raises(ProtocolError) as caught:
        read_roster(path, "ab" * 32)
    assert caught.value.code == ErrorCode.ROSTER


@pytest.mark.parametrize(("port", "fine"), [("1", True), ("65535", True), ("65536", False)])
def test_an_address_has_a_port_that_exists(tmp_path, port, fine):
    def make():
        address = f"127.0.0.1:{port}"
        return provision(tmp_path / port, name="lab", address=address, listen=address, sans=[])

    if fine:
        assert ConsortiumFolder.open(make()).consortium().listen.endswith(port)
        return
    with pytest.raises(ConfigError, match="listen"):
        make()
    assert not (tmp_path / port).exists()


def test_the_agent_s_user_needs_the_public_half_of_the_node_key_alone(hospital, monkeypatch):
    policy = hospital()
    own, private = public_keys(policy), node_key_path(policy.identity_key)
    private.write_bytes(b"of another user")
    can = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != private and can(path, mode))
    assert public_keys(policy) == own
