"""Where a result comes from: digests of code, configuration and data, versions, seeds.

Both sides of a study compare `code_digest()` in the handshake, so hospitals run what they
reviewed and nothing else.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from pydantic import Field, JsonValue

from common.contract import Contract, canonical_json, sha256_hex
from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.study.study import Identifier

PACKAGES = ("common", "client", "server")
"""Packages whose sources decide what happens to patients and updates."""

SOURCE_SUFFIXES = frozenset({".py", ".yaml", ".yml", ".json", ".j2", ".css", ".proto"})

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "flwr",
    "opacus",
    "dp-accounting",
    "h5py",
    "onnxruntime",
    "openslide-python",
    "SimpleITK",
    "pyradiomics-bhklab",
    "sentence-transformers",
)
"""Libraries whose version may change a number."""

_BLOCK = 1 << 20


@cache
def code_digest() -> str:
    """Return the SHA-256 of the installed sources of common, client and server, in hex.

    Read once a process, without importing anything. Line endings do not count, so a wheel
    built on another system has the same digest.

    Raises:
        ConfigError: One of the packages is not installed.
    """
    listed = [entry for package in PACKAGES for entry in source_digests(package)]
    return sha256_hex(canonical_json(sorted(listed)))


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
            cure="install tumorboard whole: pip install tumorboard, or make install in a clone",
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


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def folder_digest(folder: Path, pattern: str = "**/*") -> str:
    """Return the SHA-256 of all files below a folder with their relative names.

    Args:
        folder: The folder.
        pattern: Which files count, e.g. `**/*.h5` for a feature store.

    Raises:
        OSError: A file cannot be read.
    """
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    named = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in files]
    return sha256_hex(canonical_json(named))


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of the installed ones among some distributions."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class CodeFacts(Contract):
    """Which code ran where.

    Attributes:
        code_digest: `code_digest()`.
        version: Version of this distribution.
        python: Version of Python.
        system: Operating system and processor.
        libraries: Versions of the libraries that may change a number.
    """

    code_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    version: str
    python: str
    system: str
    libraries: dict[str, str]

    @classmethod
    def here(cls) -> Self:
        """Return the facts of this process."""
        return cls(
            code_digest=code_digest(),
            version=library_versions(["tumorboard"]).get("tumorboard", "not installed"),
            python=platform.python_version(),
            system=f"{platform.system()} {platform.machine()}",
            libraries=library_versions(),
        )


class RunRecord(Contract):
    """Everything needed to say where a result comes from, and to make it again.

    Holds no patient identifier. `metrics` are those of the report; one that could not be
    estimated is None.
    """

    format: int = Field(default=1, description="version of this record")
    run_id: Identifier
    started: str = Field(description="UTC, ISO 8601")
    finished: str | None = Field(default=None, description="UTC, ISO 8601; None while running")
    code: CodeFacts
    config: dict[str, JsonValue] = Field(description="study or scenario, whole")
    config_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    data: dict[str, str] = Field(default_factory=dict, description="name of the data -> SHA-256")
    seeds: dict[str, int] = Field(default_factory=dict, description="what it drives -> seed")
    metrics: dict[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def start(
        cls,
        run_id: str,
        config: Contract,
        *,
        data: Mapping[str, str] | None = None,
        seeds: Mapping[str, int] | None = None,
    ) -> Self:
        """Return the record of a run that begins now.

        Args:
            run_id: Name of the run.
            config: The study or scenario; its digest is the one hospitals approved.
            data: Name of each data set -> SHA-256; see `file_digest` and `folder_digest`.
            seeds: What each seed drives -> seed; never those of privacy noise.
        """
        return cls(
            run_id=run_id,
            started=_now(),
            code=CodeFacts.here(),
            config=config.model_dump(mode="json"),
            config_digest=config.digest(),
            data=dict(data or {}),
            seeds=dict(seeds or {}),
        )

    def finish(self, metrics: Mapping[str, JsonValue]) -> Self:
        """Return the record of the finished run."""
        return self.model_copy(update={"finished": _now(), "metrics": dict(metrics)})

    def write(self, path: Path) -> None:
        """Write the record as canonical JSON, whole or not at all."""
        write_text(path, canonical_json(self.model_dump(mode="json")) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return a written record.

        Raises:
            ConfigError: The file is missing, damaged or of another version.
        """
        return cls.from_yaml(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
