"""Check the coordinator's ports: the SuperLink on loopback, the proxy in front of it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from common.commands.doctor import Finding
from common.trust.connection import split_address
from common.trust.tls_probe import probe
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision_certificates import days_left, load_certificate

FORBIDDEN = 403
SAME_DAYS = 20 / 86400
"""Two looks at one certificate differ by less: a call lasts five seconds at most."""

CONTROL = "/v1/control/list-runs"


def port_findings(folder: ConsortiumFolder) -> Iterator[Finding]:
    """Yield whether the SuperLink can listen, or does, and who can reach it.

    Raises:
        ConfigError: Another program listens on its port.
    """
    listen = folder.consortium().listen
    host, port = split_address(listen)
    if host not in ("127.0.0.1", "::1", "localhost"):
        cure = f"set listen: 127.0.0.1:{port} in {folder.config} and use the shipped proxy"
        found = f"the SuperLink would listen on {listen}: more than /v1/fleet can be called there"
        yield Finding("ports", "warning", found, cure)
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
    seen = probe(listen, folder.ca_cert)  # nobody else holds a certificate of this authority
    if abs(seen.days_left - days_left(load_certificate(folder.server_cert))) > SAME_DAYS:
        cure = "start the server again, and the proxy"
        found = f"the SuperLink on {listen} still uses the certificate from before the rotation"
        return Finding("ports", "warning", found, cure)
    return Finding("ports", "ok", f"the SuperLink answers on {listen}")


def proxy_findings(folder: ConsortiumFolder) -> Iterator[Finding]:
    """Yield whether the address that hospitals call refuses everything but the fleet.

    Raises:
        ConfigError: Its certificate is refused, or nobody answers there.
    """
    consortium = folder.consortium()
    if consortium.address == consortium.listen:
        found = "hospitals call the SuperLink itself: right for one machine only"
        yield Finding("proxy", "ok", found)
        return
    answer = probe(consortium.address, folder.ca_cert, CONTROL)
    if answer.status == FORBIDDEN:
        yield Finding("proxy", "ok", f"{consortium.address} refuses /v1/control")
    else:
        found = f"{consortium.address} lets /v1/control through (status {answer.status})"
        cure = "put the shipped proxy before the SuperLink: deploy/proxy/tumorboard.conf"
        yield Finding("proxy", "problem", found, cure)
