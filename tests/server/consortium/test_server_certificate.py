"""The server's certificate, held against OpenSSL over real sockets."""

import socket
import ssl
import threading
from datetime import UTC, datetime

import pytest

from common.errors import ConfigError, ErrorCode
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import provision, rotate_server_certificate
from server.consortium.provision_certificates import (
    issue_server_certificate,
    load_certificate,
    load_certified,
    make_authority,
)


@pytest.fixture
def consortium(tmp_path):
    """A provisioned consortium."""
    where = "127.0.0.1:8443"
    root = provision(tmp_path / "lab", name="lab", address=where, listen=where, sans=["tb.test"])
    return ConsortiumFolder.open(root)


def handshake(consortium, ca_file, name):
    """One TLS handshake over a real socket; returns the client's error, or None."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(consortium.server_cert, consortium.server_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def accept():
            connection, _ = listener.accept()
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        client = ssl.create_default_context(cafile=ca_file)
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        try:
            with socket.create_connection(("127.0.0.1", port)) as raw:
                client.wrap_socket(raw, server_hostname=name).close()
        except ssl.SSLError as error:
            return str(error)
        finally:
            thread.join()
    return None


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "tb.test"])
def test_openssl_accepts_the_certificate_strictly_also_after_rotation(consortium, name):
    assert handshake(consortium, consortium.ca_cert, name) is None
    old = consortium.server_cert.read_bytes()
    rotate_server_certificate(consortium)
    assert consortium.server_cert.read_bytes() != old
    assert consortium.server_key.stat().st_mode & 0o077 == 0
    assert handshake(consortium, consortium.ca_cert, name) is None


def test_openssl_refuses_another_name_another_authority_and_an_expired_one(consortium, tmp_path):
    assert "CERTIFICATE_VERIFY_FAILED" in handshake(consortium, consortium.ca_cert, "evil.test")
    (tmp_path / "other.crt").write_bytes(make_authority("lab").certificate_pem())
    refused = handshake(consortium, tmp_path / "other.crt", "127.0.0.1")
    assert "CERTIFICATE_VERIFY_FAILED" in refused
    authority = load_certified(consortium.ca_cert, consortium.ca_key)
    expired = issue_server_certificate(authority, ["127.0.0.1"], days=0)
    consortium.server_cert.write_bytes(expired.certificate_pem())
    consortium.server_key.write_bytes(expired.key_pem())
    assert "expired" in handshake(consortium, consortium.ca_cert, "127.0.0.1")


def test_authority_cannot_be_used_by_a_server_certificate(consortium):
    leaf = load_certificate(consortium.server_cert)
    with pytest.raises(ConfigError) as caught:
        load_certified(consortium.server_cert, consortium.ca_key)
    assert caught.value.code == ErrorCode.CERTIFICATE
    assert (leaf.not_valid_after_utc - datetime.now(UTC)).days <= 397
