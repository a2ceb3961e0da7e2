"""The shipped nginx configuration before a real TLS server: fleet passes, all else does not."""

import http.client
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from flower_processes import free_port
from joined_consortium import make_consortium

from common.trust.connection import split_address
from simulations.deployed.shipped_proxy import NGINX, shipped_proxy

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Upstream(BaseHTTPRequestHandler):
    """Answers every path, so that a refusal is the proxy's."""

    seen: ClassVar[list] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = [self.headers.get(name) for name in ("flwr-timestamp", "x-forwarded-for")]
        type(self).seen.append((self.path, len(body), *told))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 - the library's name

    def log_message(self, *_args):
        pass


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """nginx with the shipped files before an upstream with the consortium's certificate."""
    folder = tmp_path_factory.mktemp("proxy")
    consortium = make_consortium(folder)
    port = free_port()
    web = ThreadingHTTPServer(split_address(consortium.consortium().listen), Upstream)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(consortium.server_cert, consortium.server_key)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        with shipped_proxy(folder, consortium, port):
            yield port, consortium.ca_cert
    finally:
        web.shutdown()
        web.server_close()


def ask(proxy, method, path, body=b"", headers=None):
    port, authority = proxy
    context = ssl.create_default_context(cafile=authority)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    reply = connection.getresponse()
    read = reply.read()
    connection.close()
    return reply.status, read


def test_fleet_passes_with_body_and_headers(proxy):
    body = b"x" * 3_000_000
    headers = {"flwr-timestamp": "2026-01-01", "X-Forwarded-For": "10.0.0.1"}
    status, read = ask(proxy, "POST", "/v1/fleet/push-messages", body, headers)
    assert (status, read) == (200, body)
    seen = ("/v1/fleet/push-messages", len(body), "2026-01-01", "127.0.0.1")
    assert Upstream.seen[-1] == seen  # nobody calls under an address of his choice


REFUSED = [
    "/v1/control/list-runs",
    "/v1/control/start-run",
    "/v1/runtime/pull-messages",
    "/",
    "/docs",
    "/openapi.json",
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/..%252fcontrol/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/x/../../control/list-runs",
    "//v1/control/list-runs",
    "/v1/fleet/../../v1/control/list-runs",
    "/V1/CONTROL/list-runs",
    "/v1/fleet/list-runs;/../../control/list-runs",
    "/v1/control/list-runs?/v1/fleet/",
    "/v1/fleet/..\\control\\list-runs",
]


@pytest.mark.parametrize("path", REFUSED)
def test_everything_else_is_refused_and_never_reaches_the_superlink(proxy, path):
    before = len(Upstream.seen)
    status, _ = ask(proxy, "POST", path)
    assert status in (400, 403)
    assert len(Upstream.seen) == before


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_refused(proxy, method):
    before = len(Upstream.seen)
    assert ask(proxy, method, "/v1/fleet/push-messages")[0] == 403
    assert len(Upstream.seen) == before


def test_plain_http_and_old_tls_are_refused(proxy):
    port, _ = proxy
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.sendall(b"POST /v1/fleet/push-messages HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"400" in plain.recv(100)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.deprecated_call():  # the refused version is deprecated in Python, too
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port)) as raw, pytest.raises(ssl.SSLError):
        old.wrap_socket(raw)
