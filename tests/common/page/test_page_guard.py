"""A live page over real sockets: read-only, known by its own names, closed to other sites."""

import http.client
import socket
from urllib.parse import urlsplit

import pytest
from page_runs import WrittenRun, served_run

from common.errors import ConfigError
from common.page.serving import HEADERS, check_exposure, host_name, is_loopback, page_served
from server.page.run_view import run_page

PATHS = ("/", "/live", "/status.json", "/report", "/page.css", "/live.js", "/icon.svg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = WrittenRun(tmp_path_factory.mktemp("run"))
    made.enrol()
    made.commit()
    (made.folder / "report.html").write_text("<!doctype html><title>r</title><p>the report")
    return made


@pytest.fixture(scope="module")
def url(run):
    with served_run(run.folder) as address:
        yield address


def call(url, path, *, method="GET", host=None, body=None, **headers):
    """One request by hand; returns (status, headers, body)."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or parts.netloc)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_the_headers(url, path):
    status, headers, body = call(url, path)
    assert status == 200
    assert body
    assert "default-src 'none'" in headers["content-security-policy"]
    for name in set(HEADERS) - {"content-security-policy"}:
        assert headers[name] == HEADERS[name]
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers
    assert call(url, path, method="HEAD")[0] == 200


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
)
def test_nothing_can_be_written(url, run, method):
    before = {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}
    for path in (*PATHS, "/openapi.json", "/../run.json", "/static/x"):
        status, headers, _ = call(url, path, method=method, Content_Length="2", body=b"{}")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert {f: f.read_bytes() for f in run.folder.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/openapi.json", "/run.json", "/../study.json"]
)
def test_nothing_else_is_served(url, path):
    assert call(url, path)[0] == 404


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:99"])
def test_names_of_this_machine_are_known(url, host):
    assert call(url, "/", host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "0.0.0.0", "a@b"]
)
def test_a_rebound_name_is_refused(url, host):
    status, headers, body = call(url, "/status.json", host=host)
    assert status in (400, 421)
    assert b"tiny" not in body
    assert status == 400 or headers["x-frame-options"] == "DENY"


def test_two_host_headers_are_refused(url):
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
        assert line.recv(64).split()[1] in (b"400", b"421")


def test_a_public_name_must_be_announced(run):
    with page_served(run_page(run.folder), names=["Board.Example.org"]) as url:
        assert call(url, "/", host="board.example.org:443")[0] == 200
        assert call(url, "/", host="other.example.org")[0] == 421


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "board.example.org"])
def test_other_machines_only_when_told(host):
    with pytest.raises(ConfigError) as refused:
        check_exposure(host, [])
    assert "--public-name" in refused.value.cure
    check_exposure(host, ["board.example.org"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_name(host):
    assert is_loopback(host)
    check_exposure(host, [])


def test_a_taken_port_is_told(url, run):
    port = urlsplit(url).port
    with (
        pytest.raises(ConfigError, match="cannot listen") as refused,
        page_served(run_page(run.folder), port=port),
    ):
        pass
    assert "--port" in refused.value.cure
    with pytest.raises(ConfigError), page_served(run_page(run.folder), host="no.such.host.invalid"):
        pass


def test_an_unchanged_page_is_not_sent_again(url, run):
    status, headers, _ = call(url, "/live")
    tag = headers["etag"]
    status, _, body = call(url, "/live", If_None_Match=tag)
    assert (status, body) == (304, b"")
    run.commit()
    status, headers, body = call(url, "/live", If_None_Match=tag)
    assert status == 200
    assert headers["etag"] != tag
    assert b"2 of 20" in body


def test_the_report_brings_its_own_style_and_no_script(url):
    _, headers, body = call(url, "/report")
    assert b"the report" in body
    assert "script-src" not in headers["content-security-policy"]
    assert "style-src 'unsafe-inline'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.b.", "a.b"), (" X:1 ", "x"), ("[fe80::1%25x]:2", "fe80::1%25x"), ("", ""), (":", "")],
)
def test_host_names(header, name):
    assert host_name(header) == name
