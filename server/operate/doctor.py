"""Run the coordinator's preflight: every check with its finding and how to fix it."""

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from common.commands.doctor import Check, Finding, check_machine, check_secrets, examine
from common.trust.audit_log import read_audit
from common.trust.connection import split_address
from common.trust.tls_probe import probe
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision_certificates import (
    days_left,
    is_issued_by,
    load_certificate,
    load_certified,
    names_of,
)
from server.consortium.provision_roster import present_roster
from server.flower.bundle import bundle_digest
from server.flower.superlink import is_superlink_healthy, running_server

WARNING_DAYS = 30.0
FORBIDDEN = 403
SAME_DAYS = 20 / 86400
"""Two looks at one certificate differ by less: a call lasts five seconds at most."""

CONTROL = "/v1/control/list-runs"


def examine_server(root: Path) -> list[Finding]:
    """Return what is in order and what is not in a coordinator's folder.

    Raises:
        ConfigError: There is no consortium in the folder.
    """
    folder = ConsortiumFolder.open(root)
    valid_from = load_certificate(folder.ca_cert).not_valid_before_utc.timestamp()
    checks: list[tuple[str, Check]] = [
        *check_machine(folder.root, not_before=lambda: valid_from),
        ("permissions", lambda: check_secrets(_secrets(folder))),
        ("certificates", lambda: certificate_findings(folder)),
        ("ports", lambda: _ports(folder)),
        ("superlink", lambda: _superlink(folder)),
        ("proxy", lambda: _proxy(folder)),
        ("roster", lambda: _roster(folder)),
        ("audit log", lambda: _audit(folder)),
        ("bundle", lambda: _bundle(folder)),
    ]
    return examine(checks)


def certificate_findings(folder: ConsortiumFolder) -> Iterator[Finding]:
    """Yield what is to be said of authority and server certificate, expiry first.

    Raises:
        ConfigError: A file is missing, or key and certificate do not belong together.
    """
    authority = load_certificate(folder.ca_cert)
    server = load_certified(folder.server_cert, folder.server_key).certificate
    rotate = f"tumorboard server provision {folder.root} --rotate"
    yield _expiry("server certificate", days_left(server), f"`{rotate}`, then restart the server")
    cure = "provision a new consortium before that day; hospitals install a new kit"
    yield _expiry("authority", days_left(authority), cure)
    if not is_issued_by(server, authority):
        text = f"{folder.server_cert} is not signed by {folder.ca_cert}"
        yield Finding("certificates", "problem", text, f"`{rotate}`")
    host = split_address(folder.consortium().address)[0]
    if host not in names_of(server):
        text = f"hospitals call {host}, which is not on the server certificate"
        yield Finding(
            "certificates", "problem", text, f"add it to sans in {folder.config}, then `{rotate}`"
        )


def _expiry(what: str, days: float, cure: str) -> Finding:
    if days <= 0:
        return Finding("certificates", "problem", f"{what} expired {-days:.0f} days ago", cure)
    if days < WARNING_DAYS:
        return Finding("certificates", "warning", f"{what} expires in {days:.0f} days", cure)
    return Finding("certificates", "ok", f"{what} is valid for {days:.0f} days")


def _secrets(folder: ConsortiumFolder) -> list[Path]:
    # Keys that may lie offline are checked where they are here.
    offline = [path for path in (folder.ca_key, folder.roster_key) if path.exists()]
    return [
        folder.ca_key.parent,
        folder.server_key.parent,
        folder.server_key,
        folder.audit_key,
        *offline,
    ]


def _superlink(folder: ConsortiumFolder) -> Iterator[Finding]:
    if running_server(folder) is None:
        cure = "`tumorboard server up` before hospitals join"
        yield Finding("superlink", "warning", "not running", cure)
    elif is_superlink_healthy(folder):
        yield Finding("superlink", "ok", "answers over gRPC that it is serving")
    else:
        cure = f"see {folder.superlink_log}; `tumorboard server stop --down`, then up again"
        yield Finding("superlink", "problem", "runs, but does not answer health checks", cure)


def _roster(folder: ConsortiumFolder) -> Iterator[Finding]:
    roster = present_roster(folder)
    if roster.admitted:
        message = f"version {roster.version}: {len(roster.admitted)} admitted hospitals"
        yield Finding("roster", "ok", message)
    else:
        cure = "`tumorboard server admit` for each hospital's request"
        yield Finding("roster", "warning", "no hospital is admitted yet", cure)


def _audit(folder: ConsortiumFolder) -> Iterator[Finding]:
    records = read_audit(folder.audit, folder.audit_public_key())
    yield Finding("audit log", "ok", f"{len(records)} lines, chain and signatures whole")


def _bundle(folder: ConsortiumFolder) -> Iterator[Finding]:
    digest = bundle_digest()
    kits: dict[str, object] = {}
    for record in read_audit(folder.audit):
        if record.event == "kit_written":
            kits[record.site] = record.facts.get("bundle")
    site_ids = {member.site_id for member in folder.roster().admitted}
    old = sorted(site for site, bundle in kits.items() if site in site_ids and bundle != digest)
    if old:
        cure = "write these kits again: `tumorboard server kit`; the hospitals install them"
        message = f"the kits of {', '.join(old)} allow another bundle than this version sends"
        yield Finding("bundle", "problem", message, cure)
    else:
        yield Finding("bundle", "ok", f"digest {digest[:12]}")


def _ports(folder: ConsortiumFolder) -> Iterator[Finding]:
    """Yield whether the SuperLink can listen, or does, and who can reach it.

    Raises:
        ConfigError: Another program listens on its port.
    """
    listen = folder.consortium().listen
    host, port = split_address(listen)
    if host not in ("127.0.0.1", "::1", "localhost"):
        cure = f"set listen: 127.0.0.1:{port} in {folder.config} and use the shipped proxy"
        message = f"the SuperLink would listen on {listen}: more than /v1/fleet can be called there"
        yield Finding("ports", "warning", message, cure)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError as error:
            yield _taken_port(folder, listen, error)
        else:
            yield Finding("ports", "ok", f"{listen} is free; the SuperLink is not running")


def _taken_port(folder: ConsortiumFolder, listen: str, error: OSError) -> Finding:
    if error.errno != errno.EADDRINUSE:  # no such address, or no permission
        cure = f"change listen in {folder.config}"
        return Finding("ports", "problem", f"{listen} cannot be used: {error.strerror}", cure)
    certificate = probe(listen, folder.ca_cert)  # nobody else holds a certificate of this authority
    if abs(certificate.days_left - days_left(load_certificate(folder.server_cert))) > SAME_DAYS:
        cure = "start the server again, and the proxy"
        message = f"the SuperLink on {listen} still uses the certificate from before the rotation"
        return Finding("ports", "warning", message, cure)
    return Finding("ports", "ok", f"the SuperLink answers on {listen}")


def _proxy(folder: ConsortiumFolder) -> Iterator[Finding]:
    """Yield whether the address that hospitals call refuses everything but the fleet.

    Raises:
        ConfigError: Its certificate is refused, or nobody answers there.
    """
    consortium = folder.consortium()
    if consortium.address == consortium.listen:
        message = "hospitals call the SuperLink itself: right for one machine only"
        yield Finding("proxy", "ok", message)
        return
    answer = probe(consortium.address, folder.ca_cert, CONTROL)
    if answer.status == FORBIDDEN:
        yield Finding("proxy", "ok", f"{consortium.address} refuses /v1/control")
    else:
        message = f"{consortium.address} lets /v1/control through (status {answer.status})"
        cure = "put the shipped proxy before the SuperLink: deploy/proxy/tumorboard.conf"
        yield Finding("proxy", "problem", message, cure)
