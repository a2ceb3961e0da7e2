"""The coordinator's folder: what it is called, how it is reached, and where everything lies.

::

    consortium.yaml   name, addresses, names on the certificate
    ca/               ca.crt, ca.key (signs certificates), roster.key (signs rosters)
    server/           server.pem, server.key (TLS), audit.key (signs the audit log)
    requests/         requests to join as they were admitted
    roster.json       signed list of hospitals
    superlink/        state.db, superlink.log
    runs/             one folder a run
    audit.jsonl       what was done, signed and chained
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from common.contract import Contract
from common.errors import ConfigError
from common.study.study import Identifier
from common.trust.connection import ADDRESS
from common.trust.roster import Roster, SignedRoster, read_signed_roster
from common.trust.secret_file import load_signing_key
from common.trust.signature import public_half

FILE = "consortium.yaml"


class Consortium(Contract):
    """`consortium.yaml`: the name of the consortium and how its server is reached.

    Attributes:
        name: Name of the consortium.
        address: What hospitals call, host:port; that of the reverse proxy where there is one.
        listen: What the SuperLink binds, host:port; loopback unless the coordinator says so.
        sans: Names and IP addresses on the server certificate.
    """

    name: Identifier
    address: str = Field(pattern=ADDRESS)
    listen: str = Field(pattern=ADDRESS)
    sans: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class ConsortiumFolder:
    """Typed paths below the coordinator's folder.

    Attributes:
        root: The folder, absolute.
    """

    root: Path

    @classmethod
    def open(cls, root: Path) -> ConsortiumFolder:
        """Return the folder of a provisioned consortium.

        Raises:
            ConfigError: There is none.
        """
        folder = cls(root.resolve())
        if not folder.config.is_file():
            raise ConfigError(
                "there is no consortium here",
                where=str(folder.config),
                cure="check the path, or make one with `tumorboard server provision`",
            )
        return folder

    @property
    def config(self) -> Path:
        """`consortium.yaml`."""
        return self.root / FILE

    @property
    def ca_cert(self) -> Path:
        """Certificate of the consortium's own authority (PEM)."""
        return self.root / "ca" / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Key of the authority; may lie offline except to rotate the server certificate."""
        return self.root / "ca" / "ca.key"

    @property
    def roster_key(self) -> Path:
        """Ed25519 key that signs rosters; may lie offline except to admit and revoke."""
        return self.root / "ca" / "roster.key"

    @property
    def roster_public(self) -> Path:
        """Public half of the roster key, hex."""
        return self.root / "ca" / "roster.pub"

    @property
    def server_cert(self) -> Path:
        """TLS certificate of the SuperLink (PEM)."""
        return self.root / "server" / "server.pem"

    @property
    def server_key(self) -> Path:
        """TLS key of the SuperLink (PEM)."""
        return self.root / "server" / "server.key"

    @property
    def audit_key(self) -> Path:
        """Ed25519 key that signs the audit log."""
        return self.root / "server" / "audit.key"

    @property
    def requests(self) -> Path:
        """Folder of the requests to join, as admitted."""
        return self.root / "requests"

    @property
    def roster_file(self) -> Path:
        """Signed roster."""
        return self.root / "roster.json"

    @property
    def superlink(self) -> Path:
        """Folder of the SuperLink."""
        return self.root / "superlink"

    @property
    def database(self) -> Path:
        """SQLite database of the SuperLink."""
        return self.superlink / "state.db"

    @property
    def superlink_log(self) -> Path:
        """Log of the SuperLink."""
        return self.superlink / "superlink.log"

    @property
    def runs(self) -> Path:
        """Folder that holds one folder a run."""
        return self.root / "runs"

    @property
    def audit(self) -> Path:
        """Signed, chained log of what was done."""
        return self.root / "audit.jsonl"

    def consortium(self) -> Consortium:
        """Return `consortium.yaml`.

        Raises:
            ConfigError: It is missing or wrong.
        """
        return Consortium.from_yaml(self.config)

    def load_roster_key(self) -> Ed25519PrivateKey:
        """Return the key that signs rosters.

        Raises:
            ConfigError: It is missing or damaged.
        """
        return load_signing_key(self.roster_key, what="the roster key", cure=_RESTORE)

    def load_audit_key(self) -> Ed25519PrivateKey:
        """Return the key that signs the audit log.

        Raises:
            ConfigError: It is missing or damaged.
        """
        return load_signing_key(self.audit_key, what="the audit key", cure=_RESTORE)

    def roster_public_key(self) -> str:
        """Return the public half of the roster key, hex; the private half is not needed.

        Raises:
            ConfigError: The file is missing.
        """
        try:
            return self.roster_public.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(
                "the public roster key cannot be read",
                where=str(self.roster_public),
                why=type(error).__name__,
                cure=_RESTORE,
            ) from None

    def audit_public_key(self) -> str:
        """Return the public half of the audit key, hex."""
        return public_half(self.load_audit_key())

    def roster(self) -> Roster:
        """Return the signed roster after checking its signature.

        Raises:
            ProtocolError: It is missing, or not signed by this consortium's roster key (ROSTER).
        """
        return self.signed_roster().roster

    def signed_roster(self) -> SignedRoster:
        """Return the roster with its signature, checked; it is what hospitals are sent.

        Raises:
            ProtocolError: It is missing, or not signed by this consortium's roster key (ROSTER).
        """
        return read_signed_roster(self.roster_file, self.roster_public_key())


def consortium_of_run(run_dir: Path) -> ConsortiumFolder | None:
    """Return the consortium whose folder holds a run; None for a run of a simulation."""
    folder = ConsortiumFolder(run_dir.resolve().parent.parent)
    return folder if folder.config.is_file() else None


_RESTORE = "restore it from backup; it cannot be made again under the same name"
