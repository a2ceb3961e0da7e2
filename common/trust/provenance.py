"""Compute the digest of the installed code, which both sides compare.

Both sides of a study compare `code_digest()` in the handshake, so hospitals run what they
reviewed and nothing else.
"""

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from common.contract import canonical_json, sha256_hex
from common.errors import ConfigError

PACKAGES = ("common", "client", "server")
"""Packages whose sources decide what happens to patients and updates."""

SOURCE_SUFFIXES = frozenset({".py", ".yaml", ".yml", ".json", ".j2", ".css", ".proto"})


@cache
def code_digest() -> str:
    """Return the SHA-256 of the installed sources of common, client and server, in hex.

    Read once a process, without importing anything. Line endings do not count, so a wheel
    built on another system has the same digest.

    Raises:
        ConfigError: One of the packages is not installed.
    """
    digests = [entry for package in PACKAGES for entry in source_digests(package)]
    return sha256_hex(canonical_json(sorted(digests)))


def source_digests(package: str) -> list[list[str]]:
    """Return [relative path, SHA-256] of every source file of an installed package or module.

    Raises:
        ConfigError: The package is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"the package '{package}' is not installed",
            where="code digest",
            cure="reinstall it: pip install tumorboard, or make install in a clone",
        )
    root = Path(spec.origin).parent
    files = _sources(root) if spec.submodule_search_locations else [Path(spec.origin)]
    return sorted(
        [f"{package}/{path.relative_to(root).as_posix()}", _text_digest(path)] for path in files
    )


def _sources(root: Path) -> Iterable[Path]:
    return (
        path
        for path in root.rglob("*")
        if path.suffix in SOURCE_SUFFIXES and "__pycache__" not in path.parts and path.is_file()
    )


def _text_digest(path: Path) -> str:
    return sha256_hex(path.read_bytes().replace(b"\r\n", b"\n"))
