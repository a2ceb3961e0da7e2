"""Admitting and revoking hospitals: every change makes a new signed version of the roster."""

from __future__ import annotations

from pathlib import Path

from common.errors import ConfigError
from common.join_request import JoinRequest, read_join_request, refused
from common.privacy.durable import exclusive_lock
from common.roster import Member, Roster, SignedRoster
from server.consortium_folder import ConsortiumFolder
from server.provision import audit_log, now


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
        roster = folder.roster()
        _refuse_known(request, roster, path)
        member = Member(
            site_id=request.site_id,
            name=request.name,
            identity=request.identity,
            node_key=request.node_key,
            since=now(),
        )
        grown = roster.following([*roster.members, member])
        kept = folder.requests / f"{request.site_id}-{request.digest()[:12]}.json"
        kept.write_bytes(path.read_bytes())
        SignedRoster.make(grown, key).write(folder.roster_file)
    audit_log(folder).append(
        "admitted",
        site=request.site_id,
        request_digest=request.digest(),
        identity=request.identity,
        roster_version=grown.version,
    )
    return request, grown


def revoke(folder: ConsortiumFolder, site_id: str, reason: str) -> Roster:
    """Take a hospital's right to take part and return the new roster.

    Its keys stay on the list as revoked, so that they are never admitted again.

    Raises:
        ConfigError: No admitted hospital has this name, or the roster key is not there.
    """
    key = folder.load_roster_key()
    with exclusive_lock(folder.root / ".roster.lock"):
        roster = folder.roster()
        member = roster.member(site_id)
        if member is None or member.status == "revoked":
            raise not_admitted(site_id, roster)
        update = {"status": "revoked", "since": now(), "reason": reason}
        gone = Member.from_mapping(member.model_dump() | update, where="--reason")
        shrunk = roster.following([gone if other == member else other for other in roster.members])
        SignedRoster.make(shrunk, key).write(folder.roster_file)
    audit_log(folder).append("revoked", site=site_id, reason=reason, roster_version=shrunk.version)
    return shrunk


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
