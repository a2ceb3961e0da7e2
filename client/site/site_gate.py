"""The site gate: stands before Flower's own programs and lets through one bundle, without code.

The SuperNode starts a program by name for every task a server hands it. Executables of these
names, earlier on its PATH than Flower's, start this module. It checks the bundle against the
hospital's allow-list before Flower unpacks it: a bundle's folder is put first on `sys.path`, so
code in it would shadow what the hospital installed. All tasks but a client app are refused.

The server learns the stable code; the reason stays in the SuperNode's log. This leans on an
internal name of Flower (`install_from_fab`); Flower is pinned, and a test drives the real one.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib import import_module
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
"""Programs that a SuperNode may be told to start; only the first has a use at a hospital."""

ALLOWED_FILE = "allowed-bundles"
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
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            _check_content(archive)
            if archive.getinfo("pyproject.toml").file_size > MAX_BYTES:
                raise BundleRefusedError("its manifest is too large")
            manifest = tomllib.loads(archive.read("pyproject.toml").decode("utf-8"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise BundleRefusedError(f"it cannot be read: {type(error).__name__}") from None
    named = _client_app(manifest)
    if named != CLIENT_APP:
        raise BundleRefusedError(f"it names the client app {named!r:.80}")
    digest = hashlib.sha256(bundle).hexdigest()
    if digest not in allowed:
        raise BundleRefusedError(f"its digest {digest} is not allowed here")


def read_allowed(path: Path) -> frozenset[str]:
    """Return the digests of an allow-list, one a line; none if it cannot be read."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return frozenset()
    return frozenset(line.strip().lower() for line in lines if line.strip())


def main() -> None:
    """Run the program whose name this process was started by, if the hospital allows it."""
    program = Path(sys.argv[0])
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    if program.name != GATED[0]:
        _log(f"refused to start {program.name}: only client apps run at a hospital")
        sys.exit(126)
    allowed = read_allowed(program.resolve().parent / ALLOWED_FILE)

    from flwr.supernode.cli import flwr_clientapp

    run_clientapp = import_module("flwr.supernode.runtime.run_clientapp")

    own: Callable[..., Path] = run_clientapp.install_from_fab

    def install_checked(bundle: bytes, *args: Any, **options: Any) -> Path:
        try:
            check_bundle(bundle, allowed)
        except BundleRefusedError as error:
            _log(f"bundle refused ({error}): {error.reason}")
            raise
        return own(bundle, *args, **options)

    vars(run_clientapp)["install_from_fab"] = install_checked
    flwr_clientapp()


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


def _log(text: str) -> None:
    sys.stderr.write(f"tumorboard site gate: {text}\n")
    sys.stderr.flush()
