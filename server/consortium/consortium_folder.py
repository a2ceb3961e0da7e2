"""Name the paths of the coordinator's folder, and read its files.

::

    consortium.yaml   name, addresses, names on the certificate
    ca/               ca.crt, ca.key (signs certificates), roster.key (signs rosters)
    server/           server.pem, server.key (TLS), audit.key (signs the audit log)
    requests/         requests to join as they were admitted
    roster.json       signed list of hospitals
    superlink/        state.db, superlink.log
    runs/             one folder per run
    audit.jsonl       what was done, signed and chained
"""

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


class ConsortiumFolder:
    """Typed paths below the coordinator's folder.

    Attributes:
        root: The folder.
        config: `consortium.yaml`.
        ca_cert: Certificate of the consortium's own authority (PEM).
        ca_key: Key of the authority; may lie offline except to rotate the server certificate.
        roster_key: Ed25519 key that signs rosters; may lie offline except to admit and revoke.
        roster_public: Public half of the roster key, hex.
        server_cert: TLS certificate of the SuperLink (PEM).
        server_key: TLS key of the SuperLink (PEM).
        audit_key: Ed25519 key that signs the audit log.
        requests: Folder of the requests to join, as admitted.
        roster_file: Signed roster.
        superlink: Folder of the SuperLink.
        database: SQLite database of the SuperLink.
        superlink_log: Log of the SuperLink.
        runs: Folder that holds one folder per run.
        audit: Signed, chained log of what was done.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / FILE
        self.ca_cert = root / "ca" / "ca.crt"
        self.ca_key = root / "ca" / "ca.key"
        self.roster_key = root / "ca" / "roster.key"
        self.roster_public = root / "ca" / "roster.pub"
        self.server_cert = root / "server" / "server.pem"
        self.server_key = root / "server" / "server.key"
        self.audit_key = root / "server" / "audit.key"
        self.requests = root / "requests"
        self.roster_file = root / "roster.json"
        self.superlink = root / "superlink"
        self.database = self.superlink / "state.db"
        self.superlink_log = self.superlink / "superlink.log"
        self.runs = root / "runs"
        self.audit = root / "audit.jsonl"

    @classmethod
    def open(cls, root: Path) -> "ConsortiumFolder":
        """Return the folder of a provisioned consortium.

        Raises:
            ConfigError: There is none.
        """
        folder = cls(root.resolve())
        if not folder.config.is_file():
            raise ConfigError(
                "this folder holds no consortium",
                where=str(folder.config),
                cure="check the path, or make one with `tumorboard server provision`",
            )
        return folder

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
