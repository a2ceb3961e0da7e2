"""The code digest follows the installed sources; the record holds and returns everything."""

import subprocess
import sys
from pathlib import Path

import pytest

import common.trust.provenance as provenance
from common.errors import ConfigError
from common.study.study import Study
from common.trust.provenance import (
    code_digest,
    source_digests,
)

STUDY = Study.model_validate(
    {
        "study_id": "s",
        "endpoints": {"survival": {}},
        "features": {"table": {"modality": "clinical", "dim": 1}},
        "privacy": {"mode": "local", "delta": 1e-5},
        "sites": [{"site_id": "a"}, {"site_id": "b"}],
    }
)


def package(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in {"__init__.py": b"", **files}.items():
        path = folder / "pretend_package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_every_source_byte_and_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package(tmp_path, {"a.py": b"x = 1\n", "deep/b.yaml": b"k: 1\n"})
    before = source_digests("pretend_package")
    assert sorted(name for name, _ in before) == [
        "pretend_package/__init__.py",
        "pretend_package/a.py",
        "pretend_package/deep/b.yaml",
    ]
    package(tmp_path, {"__pycache__/a.pyc": b"1", "__pycache__/a.py": b"1", "notes.txt": b"n"})
    package(tmp_path, {"a.py": b"x = 1\r\n"})
    assert sorted(source_digests("pretend_package")) == sorted(before)
    package(tmp_path, {"a.py": b"x = 2\n"})
    assert sorted(source_digests("pretend_package")) != sorted(before)


def test_code_digest_covers_client_and_server_and_imports_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys; from common.trust.provenance import code_digest; print(code_digest()); "
        "assert not {'client', 'server', 'torch'} & set(sys.modules)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before = code_digest()
    assert other.stdout.strip() == before
    monkeypatch.syspath_prepend(str(tmp_path))
    package(tmp_path, {})
    monkeypatch.setattr(provenance, "PACKAGES", ("common", "pretend_package"))
    assert provenance.code_digest.__wrapped__() != before
    monkeypatch.setattr(provenance, "PACKAGES", ("common", "no_such_package"))
    with pytest.raises(ConfigError, match="not installed"):
        provenance.code_digest.__wrapped__()
