"""Make forged calls to a consortium during a study, and calls to where no hospital may call."""

import socket
import ssl
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path

import psutil
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client.site.identity import load_node_key, node_key_path
from client.site.site_folder import load_policy
from common.errors import ErrorCode
from common.process.free_port import free_port
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_internals import interface_paths
from simulations.attackers.attempts import NO_HOSPITAL, Attempt, AuditWatch
from simulations.attackers.chaos_scenes import Stage
from simulations.attackers.tls_tap import LOOPBACK, TlsTap, send_raw, with_other_request
from simulations.deployed.bench_run import wait_until
from simulations.deployed.shipped_proxy import NGINX, shipped_proxy

ELSEWHERE = "127.0.0.2"
PULL, PUSH = "/v1/fleet/pull-messages", "/v1/fleet/push-messages"
PUT_OUT = "/v1/fleet/deactivate-node"
OLD_S = 600.0


def replays(stage: Stage, tap: TlsTap, site_id: str) -> Iterator[Attempt]:
    """Yield attempts with signed requests that were read on the line of a hospital."""
    folder = stage.consortium.folder
    port = stage.consortium.port
    wait_until(lambda: bool(tap.requests(PUSH)), "a reply on the tapped line")
    reply, ask = tap.requests(PUSH)[-1], tap.requests(PULL)[-1]
    body = ask.partition(b"\r\n\r\n")[2]
    policy = load_policy(stage.consortium.sites[site_id])
    old = _signed(load_node_key(node_key_path(policy.identity_key)), ask)
    tries = {
        "signed reply sent again": (reply, "425", ErrorCode.REPLAYED),
        "signed question sent again": (ask, "425", ErrorCode.REPLAYED),
        "its signature before another request": (
            with_other_request(reply, PUT_OUT, body),
            "425",
            ErrorCode.REPLAYED,
        ),
        f"request signed {OLD_S:.0f} s ago": (old, "401", ErrorCode.NODE_KEY),
    }
    for what, (request, status, code) in tries.items():
        watch = AuditWatch.of_coordinator(folder)
        answer, _ = send_raw(port, folder.ca_cert, request, source=ELSEWHERE)
        path = request.split(b" ", 2)[1].decode()
        where = watch.where("caller_refused", str(code), path=path, site=site_id)
        yield Attempt(what, f"HTTP {status}", {f"HTTP {answer}"}, where, NO_HOSPITAL)


def _signed(key: ec.EllipticCurvePrivateKey, request: bytes) -> bytes:
    """Return a question as a hospital's own SuperNode signed it ten minutes ago."""
    stamp = (datetime.now(UTC) - timedelta(seconds=OLD_S)).isoformat()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    headers = {
        b"flwr-timestamp": stamp.encode(),
        b"flwr-public-key": b64encode(pem),
        b"flwr-signature": b64encode(key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))),
    }
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if line.partition(b":")[0].lower() not in headers]
    return b"\r\n".join([*lines, *(name + b": " + v for name, v in headers.items()), b"", body])


def interfaces(stage: Stage) -> Iterator[Attempt]:
    """Yield calls to everything that is the coordinator's own, from a hospital's address."""
    folder = stage.consortium.folder
    port = stage.consortium.port
    watch = AuditWatch.of_coordinator(folder)
    code = str(ErrorCode.INTERFACE)
    for name, status in (("control", 403), ("runtime", 401)):
        paths = interface_paths(name)
        statuses = {_call(port, folder.ca_cert, path) for path in paths}
        where = watch.where("caller_refused", code, path=f"/v1/{name}/", address=ELSEWHERE)
        yield Attempt(
            f"{len(paths)} calls to /v1/{name} with the CA file",
            f"HTTP {status}",
            statuses,
            where,
            NO_HOSPITAL,
        )
    statuses = {_call(port, folder.ca_cert, PULL)}
    where = watch.where("caller_refused", str(ErrorCode.NODE_KEY), path=PULL, said="401")
    yield Attempt("fleet without a signature", "HTTP 401", statuses, where, NO_HOSPITAL)
    for address in _outer_addresses()[:1]:
        with socket.socket() as outside:
            is_refused = outside.connect_ex((address, port)) != 0
        outcome = {"refused" if is_refused else "open"}
        where = "bound to loopback" if is_refused else ""
        yield Attempt("the port from another address", "refused", outcome, where, NO_HOSPITAL)
    if NGINX is not None:
        yield _through_proxy(folder)


def _through_proxy(folder: ConsortiumFolder) -> Attempt:
    port = free_port()
    paths = [*interface_paths("control"), *interface_paths("runtime")]
    paths += ["/docs", "/health", "/", "/v1/fleet/../control"]
    with tempfile.TemporaryDirectory(prefix="tb") as name:
        with shipped_proxy(Path(name), folder, port) as log:
            statuses = {_call(port, folder.ca_cert, path) for path in paths}
        lines = log.read_text(encoding="utf-8").count('" 403 ')
    return Attempt(
        f"{len(paths)} calls through the shipped proxy",
        "HTTP 403",
        statuses,
        f"access log of the proxy, {lines} lines" if lines == len(paths) else "",
        NO_HOSPITAL,
    )


def _call(port: int, authority: Path, path: str) -> str:
    context = ssl.create_default_context(cafile=str(authority))
    line = HTTPSConnection(
        LOOPBACK, port, timeout=30, context=context, source_address=(ELSEWHERE, 0)
    )
    try:
        line.request("POST", path, b"", {"content-type": "application/protobuf"})
        return f"HTTP {line.getresponse().status}"
    finally:
        line.close()


def _outer_addresses() -> list[str]:
    addresses = [
        a.address for all_of in psutil.net_if_addrs().values() for a in all_of if a.family == 2
    ]
    return [address for address in addresses if not address.startswith("127.")]
