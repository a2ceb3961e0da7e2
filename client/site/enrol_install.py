"""Install a site kit; nothing is changed before everything has been checked."""

from pathlib import Path

from client.site.enrol_connection import SiteConnection, check_kit
from client.site.site_gate import GATED
from common.errors import ConfigError, ErrorCode, ProtocolError
from common.storage.atomic_file import whole_or_nothing, write_bytes, write_text
from common.study.site_policy import SitePolicy
from common.trust.connection import Connection
from common.trust.roster import read_roster

ENVIRONMENT = "supernode.env"
"""What the SuperNode's systemd unit reads."""

GATE = """\
#!/bin/sh
# The site gate. It must stand before Flower's own on the PATH of the SuperNode.
echo "tumorboard site gate: refused to start ${0##*/}: the relay alone runs apps" >&2
exit 126
"""


def install_kit(
    policy: SitePolicy, kit: Path, target: SiteConnection, *, fingerprint: str | None
) -> Connection:
    """Check a kit, install it for this site and return its connection.

    A later kit of the same consortium replaces the earlier one, never by an older roster. A
    change of the authority or of the pinned keys needs the fingerprint.

    Args:
        policy: The hospital.
        kit: Folder of the kit.
        target: Where it is installed.
        fingerprint: As compared by telephone; blanks do not count. None trusts the folder.

    Raises:
        ConfigError: A file is missing or wrong, or the site's folder cannot be written.
        ProtocolError: The kit is not what its fingerprint says, its parts do not fit each other
            or this site, or it is older than the installed one (ROSTER).
    """
    source = SiteConnection(kit.resolve())
    if not source.is_installed:
        raise ConfigError(
            "this folder holds no site kit",
            where=str(source.config),
            cure="name the folder that the coordinator sent: it holds connection.yaml",
        )
    connection = check_kit(source, policy)
    if fingerprint is not None and _plain(fingerprint) != _plain(connection.fingerprint):
        raise _refused(
            "the kit does not have this fingerprint", kit, f"it has {connection.fingerprint}"
        )
    try:
        with target.locked():
            if target.is_installed:
                _check_successor(source, target, compared=fingerprint is not None)
            _copy(source, target, connection)
    except OSError as error:
        raise ConfigError(
            "the kit cannot be installed",
            where=str(target.root),
            why=str(error),
            cure="ask for permission to write this folder",
        ) from None
    return connection


def _check_successor(source: SiteConnection, target: SiteConnection, *, compared: bool) -> None:
    new, old = source.connection(), target.connection()
    pin_names = ("consortium", "ca_digest", "roster_key")
    differences = [name for name in pin_names if getattr(new, name) != getattr(old, name)]
    if differences and not compared:
        raise _refused(
            "the kit pins other keys than the one installed here",
            source.config,
            f"changed: {', '.join(differences)}",
        )
    if not differences:
        read_roster(source.roster_file, new.roster_key, known=target.roster())


def _copy(source: SiteConnection, target: SiteConnection, connection: Connection) -> None:
    for path in (source.ca_cert, source.roster_file):
        write_bytes(target.root / path.name, path.read_bytes())
    for name in GATED:
        with whole_or_nothing(target.gate / name) as partial:
            partial.write_text(GATE, encoding="utf-8")
            partial.chmod(0o755)
    write_text(target.allowed_bundles, connection.bundle_digest + "\n")
    write_text(target.root / ENVIRONMENT, f"TUMORBOARD_SUPERLINK={connection.superlink}\n")
    write_bytes(target.config, source.config.read_bytes())


def _plain(fingerprint: str) -> str:
    return "".join(fingerprint.split()).lower()


def _refused(what: str, where: Path, why: str) -> ProtocolError:
    return ProtocolError(
        what,
        where=str(where),
        why=why,
        cure="compare the fingerprint with the coordinator by telephone and pass it: --fingerprint",
        code=ErrorCode.ROSTER,
    )
