"""Read and check the installed site kit, the folder `connection` beside `site.yaml`.

::

    connection/
      connection.yaml   addresses and pinned keys
      ca.crt            authority of the consortium
      roster.json       signed list of hospitals, the newest seen
      bin/              the site gate, earlier on the SuperNode's PATH than Flower's own
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from client.site.enrol_request import public_keys
from common.contract import sha256_hex
from common.errors import ConfigError, ErrorCode, ProtocolError
from common.storage.durable import exclusive_lock
from common.study.site_policy import SitePolicy
from common.trust.connection import FILE, Connection
from common.trust.roster import Roster, read_roster

FOLDER = "connection"
ALLOWED = "allowed-bundles"


class SiteConnection:
    """Typed paths of an installed kit.

    Attributes:
        root: The folder.
        config: `connection.yaml`.
        ca_cert: Certificate of the consortium's authority (PEM).
        roster_file: Signed roster.
        gate: Folder of the site gate; put it first on the SuperNode's PATH.
        allowed_bundles: Digests the gate lets through, one per line.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / FILE
        self.ca_cert = root / "ca.crt"
        self.roster_file = root / "roster.json"
        self.gate = root / "bin"
        self.allowed_bundles = self.gate / ALLOWED

    @classmethod
    def of_site(cls, site: Path) -> "SiteConnection":
        """Return the connection folder of a site.

        Args:
            site: `site.yaml`, or the folder that holds it.
        """
        folder = site if site.is_dir() else site.parent
        return cls(folder.resolve() / FOLDER)

    @property
    def is_installed(self) -> bool:
        """Whether a kit was installed."""
        return self.config.is_file()

    def connection(self) -> Connection:
        """Return `connection.yaml`.

        Raises:
            ConfigError: No kit was installed, or the file is wrong.
        """
        if not self.is_installed:
            raise ConfigError(
                "this hospital is not connected to a consortium",
                where=str(self.config),
                cure="`tumorboard site request`, then install the kit the coordinator sends back: "
                "`tumorboard site install-kit`",
            )
        return Connection.from_yaml(self.config)

    def roster(self) -> Roster:
        """Return the roster after checking its signature.

        Raises:
            ConfigError: No kit was installed.
            ProtocolError: The roster is missing or was altered (ROSTER).
        """
        return read_roster(self.roster_file, self.connection().roster_key)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep agent and commands from changing the folder at once: no older roster comes last.

        Raises:
            OSError: The folder cannot be written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.root / ".lock"):
            yield


def check_kit(kit: SiteConnection, policy: SitePolicy) -> Connection:
    """Return the connection of a kit after checking that its parts fit each other and this site.

    Raises:
        ConfigError: A file is missing or wrong.
        ProtocolError: The certificate or the roster is not the pinned one, the kit is for
            another site, or this site is revoked or on the roster with other keys (ROSTER).
    """
    connection = kit.connection()
    if connection.site_id != policy.site_id:
        raise _refused(
            f"the kit is for '{connection.site_id}'", kit.config, f"this is '{policy.site_id}'"
        )
    if authority_digest(kit.ca_cert) != connection.ca_digest:
        raise _refused("ca.crt is not the pinned authority", kit.ca_cert, "it was exchanged")
    member = read_roster(kit.roster_file, connection.roster_key).member(policy.site_id)
    if member is None or member.status == "revoked":
        why = f"revoked: {member.reason}" if member else "it is not named"
        raise _refused("this hospital is not admitted", kit.roster_file, why)
    own = public_keys(policy)
    if (member.identity, member.node_key) != (own.identity, own.node_key):
        why = "somebody else was admitted under this name, or the keys were changed since"
        raise _refused("the roster names other keys for this hospital", kit.roster_file, why)
    return connection


def authority_digest(path: Path) -> str:
    """Return the SHA-256 of a PEM certificate (DER), hex.

    Raises:
        ConfigError: It is missing or no certificate (CERTIFICATE).
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the certificate of the authority cannot be read",
            where=str(path),
            why=type(error).__name__,
            cure="install the kit again: `tumorboard site install-kit`",
            code=ErrorCode.CERTIFICATE,
        ) from None
    return sha256_hex(certificate.public_bytes(Encoding.DER))


def _refused(what: str, where: Path, why: str) -> ProtocolError:
    return ProtocolError(
        what,
        where=str(where),
        why=why,
        cure="ask the coordinator for a new kit, and compare its fingerprint by telephone",
        code=ErrorCode.ROSTER,
    )
