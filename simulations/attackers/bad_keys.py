"""Call a consortium during a study with unknown keys and with untrusted certificates."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from client.site.enrol_connection import SiteConnection
from client.site.enrol_request import public_keys
from client.site.site_folder import load_policy
from common.errors import ConfigError, ErrorCode
from common.process.free_port import free_port, listens
from common.process.supervisor import end_process, start_child
from common.storage.atomic_file import write_text
from common.trust.tls_probe import probe
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision_certificates import (
    issue_server_certificate,
    load_certified,
    make_authority,
)
from server.flower.flower_commands import registered_nodes
from server.flower.superlink import server_processes
from server.operate.doctor import certificate_findings
from simulations.attackers.attempts import Attempt, AuditWatch
from simulations.attackers.chaos_scenes import Stage
from simulations.attackers.outsider import Outsider, wait_for_exit
from simulations.attackers.tls_tap import LOOPBACK
from simulations.deployed.bench_run import wait_until

UNKNOWN_KEY = "Flower 2004"


def strangers(stage: Stage) -> Iterator[Attempt]:
    """Yield attempts with a key that is not admitted, one that was revoked, and another CA."""
    folder = stage.consortium.folder
    kit = SiteConnection.of_site(next(iter(stage.consortium.sites.values())))
    listen = folder.consortium().listen
    watch = AuditWatch.of_coordinator(folder)
    stranger = Outsider.make(stage.root / "stranger", kit, listen)
    code, own = str(ErrorCode.NODE_KEY), "its supernode.log"
    codes = _unknown_key(stranger)
    where = watch.where("caller_refused", code, said="2004")
    yield Attempt("unregistered key", UNKNOWN_KEY, codes, where, own if codes else "")
    yield from _revoked(stage, kit, listen)
    watch = AuditWatch.of_coordinator(folder)
    victim = Outsider.make(stage.root / "deceived", kit, listen)
    victim.connection.ca_cert.write_bytes(make_authority("local").certificate_pem())
    yield _distrusts("wrong CA", victim, watch, "unknown_ca", "CERTIFICATE_VERIFY_FAILED")


def _revoked(stage: Stage, kit: SiteConnection, listen: str) -> Iterator[Attempt]:
    folder = stage.consortium.folder
    watch = AuditWatch.of_coordinator(folder)
    visitor = Outsider.make(stage.root / "visitor", kit, listen)
    visitor.be_admitted(folder)
    n_admitted = len(folder.roster().admitted)
    wait_until(lambda: len(registered_nodes(folder)) == n_admitted, "the visitor's key")
    key = public_keys(load_policy(visitor.home)).node_key
    node = registered_nodes(folder)[key]
    with visitor.supernode() as running:
        wait_until(lambda: _is_in(folder, node), "the visitor")
        stage.consortium.command(
            *("server", "revoke", str(folder.root), "visitor", "--reason", "left the study")
        )
        wait_for_exit(running)
    code = str(ErrorCode.NODE_KEY)
    out = watch.where("node_unregistered")
    put_out = watch.where("caller_refused", code, said="401", site="visitor")
    own, codes = "its supernode.log", {"HTTP 401"} if put_out else set()
    yield Attempt("revoked key, node that was in", "HTTP 401", codes, out and put_out, own)
    codes = _unknown_key(visitor)
    where = watch.where("caller_refused", code, said="2004", site="visitor")
    yield Attempt("revoked key, a new start", UNKNOWN_KEY, codes, where, own)


def _unknown_key(caller: Outsider) -> set[str]:
    return {UNKNOWN_KEY} if "[code: 2004]" in caller.knock() else set()


def expired(stage: Stage) -> Iterator[Attempt]:
    """Yield what becomes of a server whose certificate has expired."""
    kit = SiteConnection.of_site(next(iter(stage.consortium.sites.values())))
    with _second_superlink(stage) as folder:
        watch = AuditWatch.of_coordinator(folder)
        caller = Outsider.make(stage.root / "punctual", kit, folder.consortium().listen)
        attempt = _distrusts(
            "expired certificate", caller, watch, "certificate_expired", "certificate has expired"
        )
        try:
            probe(folder.consortium().listen, caller.connection.ca_cert)
            doctor = ""
        except ConfigError as error:
            doctor = str(error.code)
        is_reported = any("expired" in finding.found for finding in certificate_findings(folder))
    yield attempt
    yield Attempt(
        "expired certificate, seen by the doctors",
        str(ErrorCode.CERTIFICATE),
        {doctor},
        "server doctor" if is_reported else "",
        "site doctor" if doctor else "",
    )


def _distrusts(what: str, caller: Outsider, watch: AuditWatch, alert: str, said: str) -> Attempt:
    """Return what a hospital says that does not trust the certificate it is shown."""
    alerts = {"TLS alert"} if said in caller.knock() else set()
    where = watch.where("caller_refused", str(ErrorCode.CERTIFICATE), said=alert)
    return Attempt(what, "TLS alert", alerts, where, "its supernode.log" if alerts else "")


@contextmanager
def _second_superlink(stage: Stage) -> Iterator[ConsortiumFolder]:
    """Run a SuperLink of the same consortium whose certificate has expired."""
    own = stage.consortium.folder
    folder = ConsortiumFolder(stage.root / "expired")
    shutil.copytree(own.root, folder.root, ignore=shutil.ignore_patterns("superlink", "runs"))
    config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    port = free_port()
    write_text(folder.config, yaml.safe_dump(config | {"listen": f"{LOOPBACK}:{port}"}))
    authority = load_certified(own.ca_cert, own.ca_key)
    certificate = issue_server_certificate(authority, [LOOPBACK], days=0)
    folder.server_cert.write_bytes(certificate.certificate_pem())
    folder.server_key.write_bytes(certificate.key_pem())
    running = start_child(server_processes(folder)[0][0])
    try:
        wait_until(lambda: listens(port), "the second SuperLink")
        yield folder
    finally:
        end_process(running, 5.0)


def _is_in(folder: ConsortiumFolder, node: str) -> bool:
    return f"Activated node_id={node}" in folder.superlink_log.read_text("utf-8", "replace")
