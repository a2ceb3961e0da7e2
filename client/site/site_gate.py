"""Refuse bundles with code, and every program that Flower would start at a hospital.

`check_bundle` lets one bundle through, by its digest, and none that holds code: Flower would put
its folder first on `sys.path`, where code would shadow what the hospital installed. The relay asks
it before every message. The server learns the stable code; the reason stays in the relay's log.

A SuperNode in Flower's subprocess mode starts a program by name for every task a server hands it.
Executables of these names, earlier on its PATH than Flower's, do nothing but say so.
"""

import hashlib
import io
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import ErrorCode

GATED = (
    "flwr-clientapp",
    "flwr-agentapp",
    "flwr-serverapp",
    "flwr-simulation",
    "flwr-model",
    "flwr-connector",
)
"""Programs that a SuperNode may be asked to start; with a relay none is needed."""

ALLOWED_NAMES = frozenset({"pyproject.toml", ".info/CONTENT"})
CLIENT_APP = "client.flower.flower_app:app"
MAX_BYTES = 1 << 20
"""Largest bundle, packed or unpacked; ours has under 2 KiB."""


class BundleRefusedError(Exception):
    """A bundle is not started here; its text, which Flower sends to the server, is the code."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(str(ErrorCode.BUNDLE))


def check_bundle(bundle: bytes, allowed: frozenset[str]) -> None:
    """Refuse a bundle that is not allowed, holds anything but its manifest, or names another app.

    Args:
        bundle: The Flower bundle (a zip file).
        allowed: SHA-256 of the allowed bundles, hex.

    Raises:
        BundleRefusedError: With the reason for the hospital's log.
    """
    if len(bundle) > MAX_BYTES:
        raise BundleRefusedError(f"the bundle has {len(bundle)} bytes")
    digest = hashlib.sha256(bundle).hexdigest()
    if digest not in allowed:  # before anything in it is parsed
        raise BundleRefusedError(f"its digest {digest} is not allowed here")
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            _check_content(archive)
            if archive.getinfo("pyproject.toml").file_size > MAX_BYTES:
                raise BundleRefusedError("its manifest is too large")
            manifest = tomllib.loads(archive.read("pyproject.toml").decode("utf-8"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise BundleRefusedError(f"it cannot be read: {type(error).__name__}") from None
    app_name = _client_app(manifest)
    if app_name != CLIENT_APP:
        raise BundleRefusedError(f"it names the client app {app_name!r:.80}")


def read_allowed(path: Path) -> frozenset[str]:
    """Return the digests of an allow-list, one per line; none if it cannot be read."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return frozenset()
    return frozenset(line.strip().lower() for line in lines if line.strip())


def _check_content(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise BundleRefusedError("a name occurs twice in it")
    extra = sorted(set(names) - ALLOWED_NAMES)
    if extra:
        kind = "code" if any(PurePosixPath(name).suffix in CODE for name in extra) else "files"
        raise BundleRefusedError(f"it holds {kind}: {', '.join(extra)[:200]!r}")


CODE = frozenset({".py", ".pyc", ".pyd", ".pyi", ".pyx", ".pth", ".so", ".dll", ".sh", ".egg"})


def _client_app(manifest: dict[str, Any]) -> object:
    try:
        return manifest["tool"]["flwr"]["app"]["components"]["clientapp"]
    except (KeyError, TypeError):
        return None
