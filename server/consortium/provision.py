"""Create a consortium: its authority, its keys, its server certificate, an empty roster."""

from datetime import UTC, datetime
from pathlib import Path

import yaml

from common.errors import ConfigError
from common.storage.atomic_file import sync, write_bytes, write_text
from common.trust.audit_log import AuditLog
from common.trust.connection import split_address
from common.trust.roster import Roster, SignedRoster
from common.trust.secret_file import create_signing_key, write_new_secret
from common.trust.signature import public_half
from server.consortium.consortium_folder import Consortium, ConsortiumFolder
from server.consortium.provision_certificates import (
    Certified,
    certificate_digest,
    issue_server_certificate,
    load_certified,
    make_authority,
)

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""Always on the certificate: the coordinator's own tools call the server there."""


def provision(root: Path, *, name: str, address: str, listen: str, sans: list[str]) -> Path:
    """Make a new consortium in a folder and return the folder.

    Args:
        root: A folder that holds no consortium yet.
        name: Name of the consortium.
        address: What hospitals call, host:port.
        listen: What the SuperLink binds, host:port.
        sans: Further names and IP addresses for the certificate; the host of `address` and
            those of loopback are always on it.

    Raises:
        ConfigError: There is a consortium (or a key of one) already, a name is wrong, or the
            folder cannot be written.
    """
    folder = ConsortiumFolder(root.resolve())
    _refuse_existing(folder)
    hosts = list(dict.fromkeys([split_address(address)[0], *sans, *LOOPBACK_NAMES]))
    consortium = Consortium.from_mapping(
        {"name": name, "address": address, "listen": listen, "sans": hosts}, where="options"
    )
    authority = make_authority(consortium.name)
    server = issue_server_certificate(authority, consortium.sans)
    try:
        _write_folder(folder, consortium, authority, server)
    except OSError as error:
        raise ConfigError(
            "the consortium's folder cannot be written",
            where=str(folder.root),
            why=str(error),
            cure="choose a folder that this account may write",
        ) from None
    audit_log(folder).append(
        "provisioned",
        consortium=consortium.name,
        address=consortium.address,
        ca_digest=certificate_digest(authority.certificate),
        roster_key=folder.roster_public_key(),
    )
    return folder.root


def rotate_server_certificate(folder: ConsortiumFolder) -> Certified:
    """Make a new key and certificate for the server; the authority stays, sites notice nothing.

    The SuperLink and the proxy read the new ones when they are started the next time.

    Raises:
        ConfigError: The authority's key is not there, or the files cannot be written.
    """
    authority = load_certified(folder.ca_cert, folder.ca_key)
    server = issue_server_certificate(authority, folder.consortium().sans)
    write_bytes(folder.server_key, server.key_pem(), mode=0o600)
    write_bytes(folder.server_cert, server.certificate_pem())
    audit_log(folder).append(
        "certificate_rotated",
        digest=certificate_digest(server.certificate),
        expires=server.certificate.not_valid_after_utc.isoformat(),
    )
    return server


def audit_log(folder: ConsortiumFolder) -> AuditLog:
    """Return the coordinator's audit log, open for appending.

    Raises:
        ConfigError: The audit key is missing.
    """
    return AuditLog(folder.audit, "coordinator", folder.load_audit_key())


def now() -> str:
    """Return the time as documents of the consortium state it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_folder(
    folder: ConsortiumFolder, consortium: Consortium, authority: Certified, server: Certified
) -> None:
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for secret in (folder.ca_key.parent, folder.server_key.parent, folder.superlink):
        secret.mkdir(exist_ok=True, mode=0o700)
    for open_folder in (folder.requests, folder.runs):
        open_folder.mkdir(exist_ok=True, mode=0o700)
    write_new_secret(folder.ca_key, authority.key_pem())
    write_bytes(folder.ca_cert, authority.certificate_pem())
    signing = create_signing_key(folder.roster_key)
    write_text(folder.roster_public, public_half(signing) + "\n")
    create_signing_key(folder.audit_key)
    write_new_secret(folder.server_key, server.key_pem())
    write_bytes(folder.server_cert, server.certificate_pem())
    empty = Roster(consortium=consortium.name, version=1)
    SignedRoster.make(empty, signing).write(folder.roster_file)
    write_text(folder.config, yaml.safe_dump(consortium.model_dump(mode="json"), sort_keys=False))
    sync(folder.root)


def _refuse_existing(folder: ConsortiumFolder) -> None:
    keys = (folder.ca_key, folder.roster_key, folder.server_key, folder.audit_key)
    existing = [path for path in (folder.config, *keys, folder.roster_file) if path.exists()]
    if existing:
        raise ConfigError(
            "this folder already holds a consortium",
            where=", ".join(str(path) for path in existing),
            why="its keys are known to hospitals and are never overwritten",
            cure="choose a new folder; `--rotate` renews the server certificate alone",
        )
