"""Create identities of simulated hospitals, for the secure sums of mode distributed."""

from __future__ import annotations

from pathlib import Path

from client.site.identity import create_identity, load_identity, public_key
from common.study.study import Study


def with_identities(study: Study, folder: Path) -> Study:
    """Return the study with every site's public key on its roster, made on first use.

    Each private key lies at `<folder>/<site_id>/private/identity.key`, where a policy with
    default paths in `<folder>/<site_id>` looks for it. Do this before the study is approved:
    the roster is part of its digest.
    """
    return study.model_copy(
        update={
            "sites": [
                entry.model_copy(update={"public_key": _identity(folder / entry.site_id)})
                for entry in study.sites
            ]
        }
    )


def _identity(site_folder: Path) -> str:
    path = site_folder / "private" / "identity.key"
    return public_key(load_identity(path)) if path.exists() else create_identity(path)
