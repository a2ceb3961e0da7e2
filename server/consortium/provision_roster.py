"""Admit and revoke hospitals: every change signs a new version of the roster."""

from pathlib import Path

from common.errors import ConfigError, ErrorCode, ProtocolError
from common.storage.durable import exclusive_lock
from common.trust.audit_log import read_audit
from common.trust.join_request import JoinRequest, read_join_request, refused
from common.trust.roster import Member, Roster, SignedRoster
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import audit_log, now


def admit(folder: ConsortiumFolder, path: Path) -> tuple[JoinRequest, Roster]:
    """Add the hospital of a request to the roster; return the request and the new roster.

    Raises:
        ProtocolError: The request is altered or unsigned, its name is taken, or one of its keys
            is on the roster already, a revoked one included (JOIN_REQUEST).
        ConfigError: The roster key is not there.
    """
    request = read_join_request(path)
    key = folder.load_roster_key()
    with exclusive_lock(folder.root / ".roster.lock"):
        roster = present_roster(folder)
        _refuse_known(request, roster, path)
        member = Member(
            site_id=request.site_id,
            name=request.name,
            identity=request.identity,
            node_key=request.node_key,
            since=now(),
        )
        new_roster = roster.following([*roster.members, member])
        request_file = folder.requests / f"{request.site_id}-{request.digest()[:12]}.json"
        request_file.write_bytes(path.read_bytes())
        SignedRoster.make(new_roster, key).write(folder.roster_file)
    audit_log(folder).append(
        "admitted",
        site=request.site_id,
        request_digest=request.digest(),
        identity=request.identity,
        roster_version=new_roster.version,
    )
    return request, new_roster


def revoke(folder: ConsortiumFolder, site_id: str, reason: str) -> Roster:
    """Take a hospital's right to take part and return the new roster.

    Its keys stay on the list as revoked, so that they are never admitted again.

    Raises:
        ConfigError: No admitted hospital has this name, or the roster key is not there.
    """
    key = folder.load_roster_key()
    with exclusive_lock(folder.root / ".roster.lock"):
        roster = present_roster(folder)
        member = roster.member(site_id)
        if member is None or member.status == "revoked":
            raise not_admitted(site_id, roster)
        update = {"status": "revoked", "since": now(), "reason": reason}
        entry = Member.from_mapping(member.model_dump() | update, where="--reason")
        shrunk = roster.following([entry if other == member else other for other in roster.members])
        SignedRoster.make(shrunk, key).write(folder.roster_file)
    audit_log(folder).append("revoked", site=site_id, reason=reason, roster_version=shrunk.version)
    return shrunk


def present_roster(folder: ConsortiumFolder) -> Roster:
    """Return the signed roster; one that is older than the audit log knows is refused.

    Raises:
        ProtocolError: It is altered, or from before an admission or revocation (ROSTER).
        LedgerError: The audit log is damaged (AUDIT_LOG).
    """
    roster, newest = folder.roster(), newest_version(folder)
    if roster.version < newest:
        raise ProtocolError(
            "the roster is older than the one known here",
            where=str(folder.roster_file),
            why=f"version {roster.version}, the audit log knows version {newest}: a revoked "
            "hospital could come back",
            cure="restore the newest roster.json; every kit written since holds a copy",
            code=ErrorCode.ROSTER,
        )
    return roster


def newest_version(folder: ConsortiumFolder) -> int:
    """Return the newest version of the roster that the audit log names; 0 if it names none.

    Raises:
        LedgerError: The audit log is damaged (AUDIT_LOG).
    """
    versions = [record.facts.get("roster_version") for record in read_audit(folder.audit)]
    return max((version for version in versions if isinstance(version, int)), default=0)


def not_admitted(site_id: str, roster: Roster) -> ConfigError:
    """Return the error of a name that no admitted hospital has."""
    names = ", ".join(member.site_id for member in roster.admitted) or "nobody"
    return ConfigError(
        f"no admitted hospital is called '{site_id}'",
        where=f"roster version {roster.version}",
        why=f"admitted: {names}",
        cure="check the name with `tumorboard server roster`",
    )


def _refuse_known(request: JoinRequest, roster: Roster, path: Path) -> None:
    for member in roster.members:
        if member.status == "admitted" and member.site_id == request.site_id:
            why = "revoke it first if the hospital changes its keys"
            raise refused(f"'{request.site_id}' is admitted already", str(path), why)
        if request.identity == member.identity or request.node_key == member.node_key:
            why = f"it is on the roster as '{member.site_id}', {member.status}"
            raise refused("a key of the request was used before", str(path), why)
