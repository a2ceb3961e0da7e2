"""Write a site kit: a folder, without secrets, by which one hospital reaches the consortium."""

import shutil
from pathlib import Path

import yaml

from common.errors import ConfigError
from common.process.deploy_files import deploy_file
from common.storage.atomic_file import write_bytes, write_text
from common.trust.connection import FILE, Connection
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import audit_log
from server.consortium.provision_certificates import certificate_digest, load_certificate
from server.consortium.provision_roster import not_admitted, present_roster


def check_kit_folder(out: Path) -> None:
    """Refuse a folder that holds something already.

    Raises:
        ConfigError: It is not empty, or a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            "the folder of the kit is not empty", where=str(out), cure="name a new folder"
        )


def write_kit(
    folder: ConsortiumFolder, site_id: str, out: Path, *, bundle_digest: str
) -> Connection:
    """Write the kit of one admitted site to a new or empty folder.

    Args:
        folder: The coordinator's folder.
        site_id: The site.
        out: The folder.
        bundle_digest: SHA-256 of the only Flower bundle that the site may let in, hex.

    Raises:
        ConfigError: No admitted site has this name, or the folder is not empty.
        ProtocolError: The roster is damaged, or older than one seen before (ROSTER).
    """
    roster = present_roster(folder)
    member = roster.member(site_id)
    if member is None or member.status == "revoked":
        raise not_admitted(site_id, roster)
    consortium = folder.consortium()
    connection = Connection(
        consortium=consortium.name,
        site_id=site_id,
        superlink=consortium.address,
        bundle_digest=bundle_digest,
        ca_digest=certificate_digest(load_certificate(folder.ca_cert)),
        roster_key=folder.roster_public_key(),
        audit_key=folder.audit_public_key(),
    )
    check_kit_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    body = yaml.safe_dump(connection.model_dump(mode="json"), sort_keys=False)
    write_bytes(out / "ca.crt", folder.ca_cert.read_bytes())
    write_bytes(out / "roster.json", folder.roster_file.read_bytes())
    shutil.copytree(deploy_file("site"), out, dirs_exist_ok=True)
    write_text(out / FILE, body)
    audit_log(folder).append(
        "kit_written", site=site_id, connection=connection.digest(), bundle=bundle_digest
    )
    return connection
