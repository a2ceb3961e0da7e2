"""Locate the files of a hospital's folder: `site.yaml`, its consents and its state."""

import os
from pathlib import Path

from client.site.consent import SignedConsent, read_consent
from client.site.identity import load_identity, public_key
from common.errors import ConfigError, ErrorCode
from common.protocol.evaluation_request import evaluation_promise
from common.storage.atomic_file import write_bytes
from common.study.site_policy import Approval, SitePolicy
from common.study.study import Study
from common.trust.plugins import check_plugins

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


def make_approval(
    policy: SitePolicy,
    study: Study,
    *,
    announced: str | None,
    epsilon: float | None,
    fallback_epsilon: float | None,
    evaluation_epsilon: float | None = None,
    evaluation_fallback: float | None = None,
    exact_runs: int = 1,
) -> Approval:
    """Return the hospital's consent to exactly this study.

    Args:
        policy: The hospital's rules.
        study: The study as read by the hospital.
        announced: Digest the coordinator announced, or its first 12 characters or more; None
            trusts the file.
        epsilon: Ceiling of training; the study's own if None.
        fallback_epsilon: Ceiling of training if all other hospitals collude.
        evaluation_epsilon: Ceiling of all evaluations; that of the study's one planned evaluation
            if None.
        evaluation_fallback: Ceiling of evaluation if all other hospitals collude.
        exact_runs: Runs whose exact tables may leave, in a study of release internal.

    Raises:
        ConfigError: The file is not the announced study (STUDY_DIGEST), its roster does not name
            this hospital, a ceiling is not positive, or the study uses code of another
            distribution than is installed here (PLUGIN).
    """
    check_plugins(study)
    digest = study.digest()
    if announced is not None and (len(announced) < SHORTEST or not digest.startswith(announced)):
        raise ConfigError(
            "this is not the study that was announced",
            where=f"digest {digest}",
            why=f"announced was {announced}; {SHORTEST} characters or more are compared",
            cure="ask the coordinator for the frozen study, and compare the digest by telephone",
            code=ErrorCode.STUDY_DIGEST,
        )
    if policy.site_id not in {entry.site_id for entry in study.sites}:
        raise ConfigError(
            f"the study's roster does not name '{policy.site_id}'",
            where="study: sites",
            why=f"it names {', '.join(entry.site_id for entry in study.sites)}",
            cure="ask the coordinator to add this hospital, or correct site_id in site.yaml",
        )
    ceilings = {
        "study_digest": digest,
        "epsilon_ceiling": study.privacy.epsilon if epsilon is None else epsilon,
        "fallback_epsilon_ceiling": fallback_epsilon,
        "evaluation_epsilon_ceiling": evaluation_epsilon or evaluation_promise(study, "dp")[0],
        "evaluation_fallback_ceiling": evaluation_fallback,
        "exact_runs": exact_runs,
    }
    return Approval.from_mapping(ceilings, where="--epsilon and the other ceilings")
