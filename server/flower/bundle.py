"""Build the Flower bundle the server sends: it names the installed apps and holds no code.

Its digest is what hospitals allow: the SHA-256 of the bytes that Flower's own builder makes.
"""

from common.contract import sha256_hex
from common.process.deploy_files import deploy_file
from server.flower import flower_internals

FOLDER = "flower_app"


def build_bundle() -> bytes:
    """Return the bundle as the SuperLink stores and sends it.

    Raises:
        ConfigError: It was not installed.
    """
    return flower_internals.build_bundle(deploy_file(FOLDER))


def bundle_digest() -> str:
    """Return the SHA-256 of the bundle, hex; the only one that site kits allow."""
    return sha256_hex(build_bundle())
