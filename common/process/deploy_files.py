"""Locate the installed files of `deploy/`: the Flower bundle, units, images, proxy."""

import sys
from pathlib import Path

from common.errors import ConfigError


def deploy_file(name: str) -> Path:
    """Return a file or folder of `deploy/`: of this clone, or as the wheel installed it.

    Args:
        name: Path below `deploy/`, e.g. `flower_app`.

    Raises:
        ConfigError: It was not installed.
    """
    roots = (
        Path(__file__).parents[2] / "deploy",
        Path(sys.prefix) / "share" / "tumorboard" / "deploy",
    )
    for root in roots:
        if (root / name).exists():
            return root / name
    raise ConfigError(
        f"deploy/{name} is not installed",
        where=" or ".join(str(root) for root in roots),
        cure="install tumorboard completely: pip install of its wheel, or a clone",
    )
