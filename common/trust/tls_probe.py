"""Probe a SuperLink with one TLS call: its certificate and its clock."""

import http.client
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509

from common.errors import ConfigError, ErrorCode
from common.trust.connection import split_address

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Probe:
    """What a server showed.

    Attributes:
        days_left: Days until its certificate expires.
        clock_ahead_s: How far this machine's clock is ahead of the server's, s; None if the
            server did not say.
        status: HTTP status of the answer.
    """

    days_left: float
    clock_ahead_s: float | None
    status: int


def probe(address: str, authority: Path, path: str = "/v1/fleet") -> Probe:
    """Call a SuperLink (or the proxy before it) and return what it showed.

    Args:
        address: host:port.
        authority: PEM certificate it must be signed by.
        path: What to ask for; nothing is sent.

    Raises:
        ConfigError: Nobody answers, or the certificate is expired, of another authority, or
            without this name (CERTIFICATE).
    """
    host, port = split_address(address)
    try:
        context = ssl.create_default_context(cafile=str(authority))
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
        connection.connect()
        certificate = connection.sock.getpeercert(binary_form=True)
        connection.request("GET", path)
        sent_at = time.time()
        reply = connection.getresponse()
        connection.close()
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            "the server's certificate is refused",
            where=address,
            why=error.verify_message,
            cure="ask the coordinator: `tumorboard server doctor` names what is wrong with it",
            code=ErrorCode.CERTIFICATE,
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(
            "the server cannot be reached",
            where=address,
            why=str(error) or type(error).__name__,
            cure="is it up, and does the firewall let this machine out to it?",
        ) from None
    expires = x509.load_der_x509_certificate(certificate or b"").not_valid_after_utc
    date = reply.getheader("Date")
    ahead = sent_at - parsedate_to_datetime(date).timestamp() if date else None
    return Probe((expires.timestamp() - sent_at) / 86400, ahead, reply.status)
