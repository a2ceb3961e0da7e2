"""Choices by name: what is offered, by whom, and what is refused."""

import subprocess
import sys

import pytest
from other_distribution import install

from common.errors import ConfigError, ErrorCode
from common.registry import Entry, OpenRegistry, Registry, offered

GROUP = "tumorboard.test_things"
THINGS = OpenRegistry("thing", GROUP, Entry, [Entry("ours", "json:dumps")])


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    offered.cache_clear()
    yield tmp_path
    offered.cache_clear()


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest():
    things = Registry("thing", [Entry("apple", "a:b"), Entry("pear", "a:b")])
    with pytest.raises(ConfigError, match="unknown thing 'aple'") as caught:
        things.get("aple", where="study.things")
    assert caught.value.where == "study.things"
    assert caught.value.cure == "did you mean 'apple'? use one of: apple, pear"
    assert [entry.name for entry in things] == ["apple", "pear"]
    assert "pear" in things
    assert "plum" not in things


def test_an_entry_point_of_another_distribution_is_found_and_imported(path):
    assert THINGS.names() == ("ours",)
    (path / "their_module.py").write_text("theirs = object()")
    install(path, {GROUP: {"theirs": "their_module:theirs"}})
    assert THINGS.names() == ("ours", "theirs")
    assert THINGS.get("theirs").load() is sys.modules["their_module"].theirs
    assert THINGS.get("ours").load().__name__ == "dumps"


def test_a_name_offered_twice_is_refused_and_both_are_named(path):
    install(path, {GROUP: {"ours": "m:a", "shared": "m:a"}}, name="graphs", version="1.2")
    with pytest.raises(ConfigError, match=r"by tumorboard and by graphs 1\.2") as caught:
        THINGS.get("ours")
    assert caught.value.code is ErrorCode.PLUGIN
    install(path, {GROUP: {"shared": "m:b"}}, name="trees", version="3")
    with pytest.raises(ConfigError, match=r"by (graphs 1\.2 and by trees 3|trees 3 and by graphs)"):
        THINGS.get("shared")


@pytest.mark.parametrize("location", ["no_such_module:x", "json:no_such_object"])
def test_code_that_cannot_be_imported_is_named(location):
    with pytest.raises(ConfigError, match="'lost' cannot be imported") as caught:
        Entry("lost", location).load()
    assert caught.value.where == location


def test_the_catalogue_imports_no_library():
    code = (
        "import sys, common.study.catalogue;"
        "heavy = {'torch', 'numpy', 'pydantic', 'SimpleITK', 'h5py'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
