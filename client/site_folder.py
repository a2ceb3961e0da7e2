"""A hospital's folder: `site.yaml`, its consents, and where everything lies."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from common.atomic_file import whole_or_nothing
from common.contract import canonical_json
from common.errors import ConfigError
from common.site_policy import Approval, SitePolicy

POLICY_FILE = "site.yaml"


def load_policy(path: Path) -> SitePolicy:
    """Return the policy of a hospital with absolute paths and all recorded consents.

    Args:
        path: `site.yaml`, or the folder that holds it.

    Raises:
        ConfigError: The file or a consent is missing, unreadable or wrong.
    """
    file = path / POLICY_FILE if path.is_dir() else path
    policy = SitePolicy.from_yaml(file).resolved(file.resolve().parent)
    return policy.model_copy(update={"approvals": [*policy.approvals, *_consents(policy)]})


def record_consent(policy: SitePolicy, approval: Approval) -> Path:
    """Store the hospital's consent to one study digest and return its file.

    A later consent to the same digest replaces the earlier one. The file is written whole, in
    the site's private folder, and readable by its owner only.
    """
    target = _consent_folder(policy) / f"{approval.study_digest}.json"
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_or_nothing(target) as partial:
        partial.touch(mode=0o600)
        partial.write_text(canonical_json(approval.model_dump(mode="json")), encoding="utf-8")
    return target


def _consents(policy: SitePolicy) -> list[Approval]:
    consents = []
    for file in sorted(_consent_folder(policy).glob("*.json")):
        try:
            consents.append(Approval.model_validate(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, ValidationError):
            raise ConfigError(
                "a recorded consent cannot be read",
                where=str(file),
                why="without it nobody knows what this hospital agreed to",
                cure="remove the file and run `tumorboard site approve` again",
            ) from None
    return consents


def _consent_folder(policy: SitePolicy) -> Path:
    return policy.state.parent / "consents"
