"""The house as it stands, and in made-up houses every fault that must be seen."""

import pytest

from simulations.benchmarks.structure import house
from simulations.benchmarks.structure.house import ROOT, static_checks

TREE = {
    "common/errors.py": "from common.wire import names\n",
    "common/wire/names.py": "NAME = 1\n",
    "client/site/gate.py": "import json\n\ndef pictures():\n    import matplotlib.figure\n",
    "server/run/rounds.py": "def go():\n    from client.site import gate\n",
    "simulations/arms/one.py": "import torch\n",
}
PROJECT = """
[project]
name = "house"
dependencies = ["torch>=2", "matplotlib"]
[project.optional-dependencies]
radiology = ["simpleitk"]
dev = ["pytest", "types-pyyaml"]
"""
FOLDERS = "knots of folders"
CIRCLES = "circles of modules"
IMPORTS = "imports in functions that load nothing slow or optional"
UNUSED = "dependencies that no code uses"
DOCUMENTED = "public modules, classes and functions without a docstring"


def built(root, **changes):
    """A made-up house; `changes` add files, double underscores for slashes."""
    files = TREE | {f"{name.replace('__', '/')}.py": text for name, text in changes.items()}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").write_text('"""A room."""\n')
    (root / "tests").mkdir(exist_ok=True)
    (root / "tests" / "test_all.py").write_text("import pytest\nimport yaml\n")
    (root / "Makefile").write_text("")
    (root / "pyproject.toml").write_text(PROJECT)
    return {check.what: check for check in static_checks(root)}


def test_the_house_holds() -> None:
    assert [str(check) for check in static_checks(ROOT) if not check.holds] == []


def test_circles_and_knots(tmp_path) -> None:
    found = built(tmp_path)
    assert found[FOLDERS].holds
    assert found[CIRCLES].holds
    found = built(tmp_path, common__wire__deep__part="from common import errors\n")
    assert found[CIRCLES].holds  # nobody imports it
    assert found[FOLDERS].note == "common - common.wire"
    found = built(tmp_path, common__wire__names="import common.errors\n")
    assert found[CIRCLES].note == "common.errors - common.wire.names"
    only_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import common.errors\n"
    assert built(tmp_path, common__wire__names=only_types)[CIRCLES].holds


def test_imports_in_functions(tmp_path) -> None:
    found = built(tmp_path)
    # matplotlib is slow; a module of ours that loads nothing is not
    assert found[IMPORTS].note == "server.run.rounds:2 client.site.gate"
    loads = "def go():\n    from simulations.arms import one\n"
    assert built(tmp_path, server__run__rounds=loads)[IMPORTS].holds  # torch, through ours
    twice = "import torch\n\ndef go():\n    from simulations.arms.one import torch\n"
    found = built(tmp_path, server__run__rounds=twice)
    assert "simulations.arms.one.torch" in found[IMPORTS].note  # it is loaded anyway
    optional = "def go():\n    import SimpleITK\n"
    assert built(tmp_path, server__run__rounds=optional)[IMPORTS].holds


def test_unused_dependencies(tmp_path) -> None:
    # torch is for everybody, but only simulations use it; nothing reads an image
    assert built(tmp_path)[UNUSED].note == "everybody: torch; radiology: simpleitk"
    code = 'import torch\nfrom common.optional import require\nrequire("SimpleITK", extra="x")\n'
    assert built(tmp_path, client__site__volume=code)[UNUSED].holds


def test_docstrings_and_sizes(tmp_path) -> None:
    body = "    x = 1\n" * 60
    text = f'"""One."""\n\ndef long():\n    """Do."""\n{body}\n\ndef _short():\n    pass\n'
    found = built(tmp_path, common__errors=text)
    assert found["lines of the longest function"].value == 62
    assert not found["lines of the longest function"].holds
    assert "common.errors" not in found[DOCUMENTED].note
    assert "common.wire.names" in found[DOCUMENTED].note
    assert found["modules in the largest folder"].value == 1


@pytest.mark.parametrize(
    ("last", "value"),
    [
        ("====== 10 passed in 1.00s ======", 0),
        ("10 passed, 3 warnings in 1.00s", 3),
        ("Exception in thread Thread-1:\n2 failed, 10 passed, 1 warning in 1.00s", 4),
        ("no tests ran in 0.01s", None),
    ],
)
def test_warnings_are_read_from_what_pytest_says(tmp_path, monkeypatch, last, value) -> None:
    (tmp_path / "output.txt").write_text(f"....\n{last}\n")
    monkeypatch.setenv(house.TEST_OUTPUT, str(tmp_path / "output.txt"))
    assert house._warnings("tests").value == value


def test_a_package_that_loads_fast_is_not_slow() -> None:
    assert house._fast_packages(["json"]).note.startswith("json 0.0")
