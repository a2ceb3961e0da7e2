"""Keep the newest roster that the coordinator's roster key has signed.

It comes with the site kit, then with every handshake, or by hand. What the hospital goes by is the
key it pinned when the kit was installed, and the version it saw last: whoever breaks into the
coordinator's server can neither invent a hospital nor bring a revoked one back, since the key that
signs rosters is not there. Such a server can keep a newer roster to itself; a hospital that hears
of a revocation by telephone takes the file by hand.
"""

from pathlib import Path

from client.site.enrol_connection import SiteConnection
from common.errors import ConfigError, ErrorCode, ProtocolError
from common.trust.audit_log import AuditLog
from common.trust.roster import Roster, parse_roster

HANDSHAKE = "handshake"


class HospitalRoster:
    """The known roster of one hospital; its version never goes down.

    Args:
        connection: The installed kit, if there is one; it may be installed later.
        log: The hospital's audit log; every new version is noted before it is in force.
    """

    def __init__(self, connection: SiteConnection, log: AuditLog) -> None:
        self._connection, self._log = connection, log

    def current(self) -> Roster | None:
        """Return the last known roster; None while no kit is installed.

        Raises:
            ProtocolError: It was altered on this machine (ROSTER).
        """
        return self._connection.roster() if self._connection.is_installed else None

    def update(self, text: str | None) -> Roster | None:
        """Return the roster that applies after a handshake; None while no kit is installed.

        Args:
            text: What the handshake carried; None leaves the last known one.

        Raises:
            ProtocolError: It is altered, older, or of another key or consortium (ROSTER).
            ConfigError: It cannot be stored.
        """
        if text is None or not self._connection.is_installed:
            return self.current()
        return self.accept(text, where=HANDSHAKE)

    def accept(self, text: str, *, where: str) -> Roster:
        """Check a signed roster, store it if it is newer, and return it.

        When this returns, log and file are on disk.

        Raises:
            ProtocolError: It is altered, older, or of another key or consortium (ROSTER).
            ConfigError: No kit is installed, or the folder of the kit cannot be written.
            OSError: The disk is full.
        """
        connection = self._connection
        site_connection = connection.connection()
        try:
            with connection.locked():
                current = connection.roster()
                signed = parse_roster(text, site_connection.roster_key, where=where, known=current)
                if signed.roster.version > current.version:
                    self._log.append(
                        "roster_taken",
                        source=HANDSHAKE if where == HANDSHAKE else "by hand",
                        roster_version=signed.roster.version,
                        roster_digest=signed.roster.digest(),
                        before=current.version,
                    )
                    signed.write(connection.roster_file)
        except PermissionError as error:
            raise ConfigError(
                "the new roster cannot be stored",
                where=str(connection.root),
                why=str(error),
                cure="let the account of the agent write this folder, and what is in it",
            ) from None
        return signed.roster

    def install(self, path: Path) -> Roster:
        """Install a roster from a file.

        Raises:
            ProtocolError: It cannot be read, or is refused (ROSTER).
            ConfigError: No kit is installed, or the roster cannot be stored.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ProtocolError(
                "the roster cannot be read",
                where=str(path),
                why=type(error).__name__,
                cure="name the roster.json that the coordinator sent",
                code=ErrorCode.ROSTER,
            ) from None
        return self.accept(text, where=str(path))
