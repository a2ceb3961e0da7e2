"""Locate the files of a hospital's folder: `site.yaml`, its consents and its state."""

import os
from pathlib import Path

from client.site.consent import SignedConsent, read_consent
from client.site.identity import load_identity, public_key
from common.errors import ConfigError
from common.storage.atomic_file import write_bytes
from common.study.site_policy import Approval, SitePolicy

POLICY_FILE = "site.yaml"
SHORTEST = 12
"""Fewest characters of a digest that name a study."""


def load_policy(path: Path) -> SitePolicy:
    """Return the policy of a hospital with absolute paths and all recorded consents.

    Args:
        path: `site.yaml`, or the folder that holds it.

    Raises:
        ConfigError: The file or a consent is missing, unreadable or wrong.
    """
    file = path / POLICY_FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            "this folder holds no hospital",
            where=str(file),
            cure="pass the folder of its site.yaml, or make one with `tumorboard site init`",
        )
    policy = SitePolicy.from_yaml(file).resolved(file.resolve().parent)
    return policy.model_copy(update={"approvals": [*_consents(policy), *policy.approvals]})


def record_consent(policy: SitePolicy, approval: Approval) -> Path:
    """Store the hospital's consent to one study digest, signed by its identity; return the file.

    A later consent to the same digest replaces the earlier one. The file is written whole, in
    the site's private folder, and readable by its owner only.

    Raises:
        ConfigError: The hospital has no identity yet, or the private folder cannot be written.
    """
    consent = SignedConsent.make(approval, load_identity(policy.identity_key))
    folder = writable_folder(_consent_folder(policy), key="state", mode=0o700)
    target = folder / f"{approval.study_digest}.json"
    write_bytes(target, consent.text().encode(), mode=0o600)
    return target


def withdraw_consent(policy: SitePolicy, digest: str) -> str:
    """Take back the hospital's recorded consent to a study; return the study's digest.

    The agent refuses the study's next call. What has left stays with those who have it, and what
    was spent stays spent.

    Args:
        policy: The hospital's rules.
        digest: Digest of the study, or its first 12 characters or more.

    Raises:
        ConfigError: There is no such consent, or it stands in site.yaml.
    """
    matches = [a.study_digest for a in policy.approvals if a.study_digest.startswith(digest)]
    if len(digest) < SHORTEST or len(set(matches)) != 1:
        raise ConfigError(
            "there is no consent to this study",
            where=f"digest {digest}",
            why=f"{SHORTEST} characters or more must name one of {len(policy.approvals)} consents",
            cure="see the digests with `tumorboard study show`, or in the folder of consents",
        )
    file = _consent_folder(policy) / f"{matches[0]}.json"
    if not file.is_file():
        raise ConfigError(
            "this consent was not recorded by `tumorboard site approve`",
            where="site.yaml: approvals",
            cure="take it out there; the agent then refuses the study",
        )
    file.unlink()
    return matches[0]


def writable_folder(folder: Path, *, key: str, mode: int = 0o755) -> Path:
    """Return a folder that exists and may be written; made if need be.

    Args:
        folder: The folder.
        key: Option or key of site.yaml that names it, for the message.
        mode: Permissions of a new folder.

    Raises:
        ConfigError: It is a file, or may not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
        usable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        usable = False
    if not usable:
        raise ConfigError(
            "this folder cannot be written",
            where=f"{key}: {folder}",
            why="a file is in its way, or this account has no permission",
            cure="name another folder, or ask for permission",
        )
    return folder


def _consents(policy: SitePolicy) -> list[Approval]:
    files = sorted(_consent_folder(policy).glob("*.json"))
    if not files:
        return []
    key = public_key(load_identity(policy.identity_key))
    return [read_consent(file, key) for file in files]


def _consent_folder(policy: SitePolicy) -> Path:
    return policy.state.parent / "consents"
