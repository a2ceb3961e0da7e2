"""The Flower bundle the server sends: it names the installed apps and holds no code.

Its digest is what hospitals allow: the SHA-256 of the bytes that Flower's own builder makes.
"""

from __future__ import annotations

from pathlib import Path

from common.contract import sha256_hex
from common.process.deploy_files import deploy_file

FOLDER = "flower_app"


def bundle_folder() -> Path:
    """Return the folder that `flwr run` sends.

    Raises:
        ConfigError: It was not installed.
    """
    return deploy_file(FOLDER)


def build_bundle() -> bytes:
    """Return the bundle as the SuperLink stores and sends it.

    Raises:
        ConfigError: It was not installed.
    """
    from flwr.cli.build import build_fab_from_disk  # here: the command line starts without Flower

    return build_fab_from_disk(bundle_folder())


def bundle_digest() -> str:
    """Return the SHA-256 of the bundle, hex; the only one that site kits allow."""
    return sha256_hex(build_bundle())
