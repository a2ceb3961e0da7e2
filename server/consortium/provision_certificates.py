"""Issue the consortium's certificate authority and the TLS certificate of its server.

Keys are P-384. The authority signs nothing but server certificates (path length 0) and lives
ten years; a server certificate lives 397 days, the longest that strict clients accept.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.contract import sha256_hex
from common.errors import ConfigError, ErrorCode

AUTHORITY_DAYS = 3653
SERVER_DAYS = 397
CLOCK_SLACK = timedelta(hours=1)
"""Certificates begin a little early, for clocks that are behind."""


@dataclass(frozen=True)
class Certified:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def key_pem(self) -> bytes:
        """Return the private key, PEM, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def certificate_pem(self) -> bytes:
        """Return the certificate, PEM."""
        return self.certificate.public_bytes(Encoding.PEM)


def make_authority(name: str, *, days: int = AUTHORITY_DAYS) -> Certified:
    """Return a new self-signed authority for one consortium."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} consortium CA"[:64])])
    builder = _begin(subject, subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    return Certified(key, builder.sign(key, hashes.SHA384()))


def issue_server_certificate(
    authority: Certified, sans: list[str], *, days: int = SERVER_DAYS
) -> Certified:
    """Return a new key and its certificate for the server.

    Args:
        authority: Who signs it.
        sans: Host names and IP addresses under which the server is called.
        days: Days it is valid; never beyond the authority's own end.

    Raises:
        ConfigError: A name is no host name and no IP address.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, sans[0][:64])])
    issuer = authority.certificate
    builder = _begin(subject, issuer.subject, key.public_key(), days, issuer.not_valid_after_utc)
    names = x509.SubjectAlternativeName([_general_name(san) for san in sans])
    server_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    for extension in (names, server_only, signer, own):
        builder = builder.add_extension(extension, critical=False)
    return Certified(key, builder.sign(authority.key, hashes.SHA384()))


def load_certificate(path: Path) -> x509.Certificate:
    """Return the first certificate of a PEM file.

    Raises:
        ConfigError: It is missing or no certificate (CERTIFICATE).
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise unusable("the certificate cannot be read", path, type(error).__name__) from None


def load_certified(certificate: Path, key: Path) -> Certified:
    """Return a certificate with its key.

    Raises:
        ConfigError: One is missing or damaged, or they do not belong together (CERTIFICATE).
    """
    x509_certificate = load_certificate(certificate)
    try:
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise unusable("the key cannot be read", key, type(error).__name__) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise unusable("the key is not on an elliptic curve", key, type(private).__name__)
    if _spki(private.public_key()) != _spki(x509_certificate.public_key()):
        raise unusable("key and certificate do not belong together", key, f"beside {certificate}")
    return Certified(private, x509_certificate)


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether the authority signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the host names and IP addresses a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> float:
    """Return the days until a certificate expires; negative once it has."""
    left = certificate.not_valid_after_utc - (now or datetime.now(UTC))
    return left.total_seconds() / 86400


def certificate_digest(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate (DER), hex."""
    return sha256_hex(certificate.public_bytes(Encoding.DER))


def unusable(what: str, where: Path | str, why: str) -> ConfigError:
    """Return the error of a certificate that cannot be used."""
    return ConfigError(
        what,
        where=str(where),
        why=why,
        cure="`tumorboard server provision FOLDER --rotate` makes a new server certificate; "
        "restore those of the authority from backup",
        code=ErrorCode.CERTIFICATE,
    )


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(min(end, latest) if latest else end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        pass
    labels = san.split(".")
    if not all(label and label.replace("-", "").isalnum() and label.isascii() for label in labels):
        raise ConfigError(
            f"'{san}' is no host name and no IP address",
            where="--san, --host",
            cure="write it without port and scheme: fl.example.org or 192.0.2.7",
        )
    return x509.DNSName(san)
