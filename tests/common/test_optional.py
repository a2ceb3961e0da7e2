"""Optional libraries name the extra that installs them."""

import sys
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.optional import require


def test_installed_modules_come_back() -> None:
    assert require("xml.dom", extra="text") is sys.modules["xml.dom"]


def test_a_missing_one_names_the_extra() -> None:
    with pytest.raises(ConfigError, match="is not installed") as caught:
        require("no_such_library.part", extra="radiology")
    assert "tumorboard[radiology]" in caught.value.cure
    assert "no_such_library" in caught.value.why


def test_a_broken_one_is_told_from_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library_x.py").write_text("raise ImportError('libfoo.so not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        require("broken_library_x", extra="pathology")
    assert "libfoo.so" in caught.value.why
