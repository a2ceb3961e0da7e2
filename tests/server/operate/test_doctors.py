"""Both doctors, on a healthy consortium and with each problem made on purpose."""

import json
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from joined_consortium import join, make_consortium, make_hospital
from typer.testing import CliRunner

from client.operate.cli import app as site_app
from client.operate.doctor import examine_site
from common.commands.doctor import (
    check_clock,
    check_disk,
    check_flower,
    check_import_names,
    check_packages,
    worst,
)
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision_certificates import (
    issue_server_certificate,
    load_certified,
    make_authority,
)
from server.consortium.provision_roster import revoke
from server.operate.cli import app as server_app
from server.operate.doctor import examine_server


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A consortium with one joined hospital, made once."""
    folder = tmp_path_factory.mktemp("made")
    consortium, policy = make_consortium(folder), make_hospital(folder, "a")
    join(consortium, policy, folder)
    (folder / "a" / "features").mkdir()
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it, to be spoiled."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    return tmp_path


class Clock(BaseHTTPRequestHandler):
    """Answers 404 with a clock that may be wrong."""

    ahead_s = 0.0

    def do_GET(self):
        self.send_response(404)
        self.end_headers()

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + type(self).ahead_s)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(folder):
    """A TLS server on the consortium's port, with the consortium's present certificate."""
    running = []

    def start(ahead_s=0.0):
        Clock.ahead_s = ahead_s
        port = port_of(folder)
        web = HTTPServer(("127.0.0.1", port), Clock)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "lab/server/server.pem", folder / "lab/server/server.key")
        web.socket = context.wrap_socket(web.socket, server_side=True)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        running.append(web)

    yield start
    for web in running:
        web.shutdown()
        web.server_close()


def port_of(folder):
    text = (folder / "lab" / "consortium.yaml").read_text()
    return int(text.partition("listen: ")[2].splitlines()[0].rpartition(":")[2].strip("'"))


def problems(findings):
    """Check -> text of everything that is not in order, with its cure."""
    assert all(f.cure for f in findings if f.status != "ok")
    return {f.check: f"{f.status}: {f.found}" for f in findings if f.status != "ok"}


def at_server(folder):
    return problems(examine_server(folder / "lab"))


def at_site(folder):
    return problems(examine_site(folder / "a"))


def test_a_healthy_consortium_has_no_problem(folder, server):
    server()
    found = examine_server(folder / "lab") + examine_site(folder / "a")
    assert [f for f in found if f.status == "problem"] == []
    checked = {f.check for f in found}
    assert checked >= {"packages", "flower", "clock", "disk", "permissions", "certificates"}
    assert checked >= {"ports", "device", "policy", "data", "site kit", "site gate", "server"}


def test_expired_certificate_is_found_by_both(folder, server):
    lab = folder / "lab"
    authority = load_certified(lab / "ca/ca.crt", lab / "ca/ca.key")
    expired = issue_server_certificate(authority, ["127.0.0.1"], days=0)
    (lab / "server/server.pem").write_bytes(expired.certificate_pem())
    (lab / "server/server.key").write_bytes(expired.key_pem())
    assert "server certificate expired" in at_server(folder)["certificates"]
    server()
    assert "certificate has expired" in at_site(folder)["server"]


@pytest.mark.parametrize(("days", "status"), [(20, "warning"), (40, None)])
def test_expiry_warns_a_month_ahead(folder, server, days, status):
    lab = folder / "lab"
    authority = load_certified(lab / "ca/ca.crt", lab / "ca/ca.key")
    soon = issue_server_certificate(authority, ["127.0.0.1"], days=days)
    (lab / "server/server.pem").write_bytes(soon.certificate_pem())
    (lab / "server/server.key").write_bytes(soon.key_pem())
    server()
    for found in (at_server(folder).get("certificates"), at_site(folder).get("server")):
        assert (found or "None").startswith(status or "None")
    shown = CliRunner().invoke(server_app, ["status", str(folder / "lab")]).stdout
    assert ("warning: server certificate expires in" in shown) == (status == "warning")


def test_a_server_that_was_not_started_again_after_a_rotation(folder, server):
    server()
    assert "ports" not in at_server(folder)
    lab = ConsortiumFolder.open(folder / "lab")
    authority = load_certified(lab.ca_cert, lab.ca_key)
    newer = issue_server_certificate(authority, lab.consortium().sans, days=300)
    lab.server_cert.write_bytes(newer.certificate_pem())
    lab.server_key.write_bytes(newer.key_pem())
    assert "before the rotation" in at_server(folder)["ports"]


def test_certificate_of_another_authority(folder, server):
    lab = folder / "lab"
    other = issue_server_certificate(make_authority("lab"), ["127.0.0.1"])
    (lab / "server/server.pem").write_bytes(other.certificate_pem())
    (lab / "server/server.key").write_bytes(other.key_pem())
    assert "is not signed by" in at_server(folder)["certificates"]
    server()
    assert "certificate" in at_site(folder)["server"]


def test_key_of_another_certificate_and_a_missing_name(folder):
    config = folder / "lab" / "consortium.yaml"
    config.write_text(config.read_text().replace("address: 127.0.0.1", "address: fl.example.org"))
    assert "fl.example.org, which is not on" in at_server(folder)["certificates"]
    shutil.copy(folder / "lab/ca/ca.key", folder / "lab/server/server.key")
    assert "do not belong together" in at_server(folder)["certificates"]


def test_port_in_use_by_a_stranger(folder, monkeypatch):
    monkeypatch.setattr("common.trust.tls_probe.TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", port_of(folder))):
        assert "cannot be reached" in at_server(folder)["ports"]
        assert "cannot be reached" in at_site(folder)["server"]


def test_a_server_without_the_proxy_lets_hospitals_at_its_control(folder, server):
    server()  # answers 404 where the proxy answers 403
    config = folder / "lab" / "consortium.yaml"
    config.write_text(config.read_text().replace("address: 127.0.0.1", "address: localhost"))
    assert "lets /v1/control through" in at_server(folder)["proxy"]


def test_a_roster_that_is_older_than_the_audit_log(folder):
    before = (folder / "lab" / "roster.json").read_bytes()
    revoke(ConsortiumFolder.open(folder / "lab"), "a", "left")
    (folder / "lab" / "roster.json").write_bytes(before)
    assert "the audit log knows version 3" in at_server(folder)["roster"]


def test_processes_that_run_but_do_not_answer(folder, monkeypatch):
    running = type("Running", (), {"facts": {}})
    monkeypatch.setattr("server.operate.doctor.running_server", lambda _folder: running)
    monkeypatch.setattr("server.operate.doctor.is_superlink_healthy", lambda _folder: False)
    monkeypatch.setattr("client.operate.doctor_connection.read_supervised", lambda _path: running)
    assert "does not answer health checks" in at_server(folder)["superlink"]
    assert "does not answer health checks" in at_site(folder)["supernode"]


def test_superlink_open_to_the_network_is_a_warning(folder):
    config = folder / "lab" / "consortium.yaml"
    config.write_text(config.read_text().replace("listen: 127.0.0.1", "listen: 0.0.0.0"))
    assert "more than /v1/fleet can be called" in at_server(folder)["ports"]
    config.write_text(config.read_text().replace("listen: 0.0.0.0", "listen: 192.0.2.1"))
    assert "cannot be used" in at_server(folder)["ports"]


@pytest.mark.parametrize(("ahead_s", "side"), [(-20, "20 s ahead of"), (600, "600 s behind")])
def test_a_site_whose_clock_is_off(folder, server, ahead_s, side):
    server(ahead_s)
    said = at_site(folder)["clock"]
    assert said.startswith("problem")
    seconds, _, rest = side.partition(" ")
    assert rest in said
    assert abs(int(said.split(" is ")[1].split(" ")[0]) - int(seconds)) <= 2


def test_keys_that_others_may_read(folder):
    (folder / "lab/ca/ca.key").chmod(0o644)
    (folder / "a/private/node.key").chmod(0o640)
    assert "ca.key" in at_server(folder)["permissions"]
    assert "node.key" in at_site(folder)["permissions"]


def test_a_missing_server_key(folder):
    (folder / "lab/server/audit.key").unlink()
    assert "audit.key is missing" in at_server(folder)["permissions"]


def test_altered_roster_and_audit_log(folder):
    roster = folder / "lab" / "roster.json"
    roster.write_text(roster.read_text().replace('"status":"admitted"', '"status":"revoked"'))
    shutil.copy(roster, folder / "a/connection/roster.json")
    audit = folder / "lab" / "audit.jsonl"
    audit.write_bytes(b"".join(audit.read_bytes().splitlines(keepends=True)[:-1]))
    found = at_server(folder)
    assert "TB521" in found["roster"]
    assert "TB422" in found["audit log"]
    assert "TB521" in at_site(folder)["site kit"]


def test_kits_of_another_bundle(folder, monkeypatch):
    monkeypatch.setattr("server.operate.doctor.bundle_digest", lambda: "ab" * 32)
    assert "the kits of a allow another bundle" in at_server(folder)["bundle"]


@pytest.mark.parametrize("spoil", ["missing", "allowed", "python"])
def test_a_site_gate_that_is_open(folder, spoil):
    gate = folder / "a" / "connection" / "bin"
    if spoil == "missing":
        (gate / "flwr-clientapp").unlink()
    elif spoil == "allowed":
        (gate / "allowed-bundles").write_text("ab" * 32 + "\n" + "cd" * 32 + "\n")
    else:
        (gate / "flwr-clientapp").write_text("#!/nowhere/python\n")
    assert at_site(folder)["site gate"].startswith("problem")


def test_data_policy_keys_and_device(folder):
    site = folder / "a"
    (site / "manifest.csv").unlink()
    (site / "private/node.key").unlink()
    text = (site / "site.yaml").read_text().replace("device: auto", "device: cuda")
    text = text.replace("[distributed, local]", "[distributed, none]")
    (site / "site.yaml").write_text(text)
    found = at_site(folder)
    assert "manifest.csv does not exist" in found["data"]
    assert "node key" in found["keys"]
    assert "CUDA is requested" in found["device"]
    assert "no study is approved" in found["policy"]


def test_patients_that_every_account_may_read():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        make_hospital(folder, "b")
        (folder / "b" / "features").mkdir()
        assert "every account of this machine" in problems(examine_site(folder / "b"))["data"]
        (folder / "b" / "manifest.csv").chmod(0o640)
        (folder / "b" / "features").chmod(0o750)
        assert "data" not in problems(examine_site(folder / "b"))


def test_damaged_ledger_and_audit_log_of_a_site(folder):
    (folder / "a/private/ledger.jsonl").write_text("{}\n")
    (folder / "a/private/audit.jsonl").write_text("{}\n")
    found = at_site(folder)
    assert "TB420" in found["ledger"]
    assert "TB422" in found["audit log"]


def test_a_revoked_site_learns_it_with_the_next_kit(folder):
    revoke(ConsortiumFolder.open(folder / "lab"), "a", "left")
    shutil.copy(folder / "lab/roster.json", folder / "a/connection/roster.json")
    assert "revoked: left" in at_site(folder)["site kit"]


def test_an_agent_socket_that_everybody_may_call(folder):
    where = folder / "a" / "private" / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        where.chmod(0o666)
        found = [f for f in examine_site(folder / "a") if f.check == "agent"]
    assert [f.status for f in found] == ["problem", "problem"]
    assert "everybody may call" in found[0].found
    assert "does not answer" in found[1].found


def test_packages_that_are_missing_or_too_old(tmp_path, monkeypatch):
    info = tmp_path / "planted-1.dist-info"
    info.mkdir()
    needs = ["numpy<1", "no-such-package>=2", "pytest", 'no-extra; extra == "x"']
    lines = ["Metadata-Version: 2.1", "Name: planted", "Version: 1"]
    (info / "METADATA").write_text("\n".join(lines + [f"Requires-Dist: {n}" for n in needs]) + "\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = list(check_packages("planted"))
    assert [f.status for f in found] == ["problem", "problem"]
    assert "numpy" in found[0].found
    assert "no-such-package is missing" in found[1].found


def test_flower_of_another_version(monkeypatch):
    monkeypatch.setattr("common.commands.doctor.version", lambda _name: "1.42.0")
    assert [f.status for f in check_flower()] == ["problem"]


def test_import_names_that_are_somebody_elses():
    assert [f.status for f in check_import_names(["common", "email"])] == ["problem"]
    assert [f.status for f in check_import_names()] == ["ok"]


def test_a_clock_that_is_hours_behind():
    found = list(check_clock(time.time() + 7200))
    assert [f.status for f in found] == ["problem"]
    assert "2.0 hours behind" in found[0].found


@pytest.mark.parametrize(("free", "status"), [(5e8, "problem"), (5e9, "warning"), (5e10, "ok")])
def test_a_full_disk(monkeypatch, tmp_path, free, status):
    usage = type("Usage", (), {"free": int(free)})
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert [f.status for f in check_disk(tmp_path / "not" / "yet")] == [status]


def test_commands_exit_with_one_if_there_is_a_problem(folder):
    def run(app, *line):
        return CliRunner().invoke(app, [*line, "--json"])

    done = run(server_app, "doctor", str(folder / "lab"))
    assert done.exit_code == 0
    assert json.loads(done.stdout)["status"] in ("ok", "warning")
    done = run(site_app, "doctor", "--site", str(folder / "a"))  # no server answers
    told = json.loads(done.stdout)
    assert (done.exit_code, told["status"]) == (1, "problem")
    assert all(f["cure"] for f in told["findings"] if f["status"] == "problem")


def test_a_hospital_that_joined_nothing_is_warned_only(tmp_path):
    make_hospital(tmp_path, "b")
    (tmp_path / "b" / "features").mkdir()
    found = examine_site(tmp_path / "b")
    assert worst(found) == "warning"
    assert "belongs to no consortium yet" in problems(found)["site kit"]
