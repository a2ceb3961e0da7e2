"""Packages offer their public names late, typed and documented, and nothing else."""

import ast
import inspect
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from common.lazy import lazy_names

PACKAGES = ("common", "client", "server", "simulations")


def stub(package):
    """Return name -> module as the stub says it."""
    file = Path(import_module(package).__file__).with_suffix(".pyi")
    lines = [line for line in ast.parse(file.read_text()).body if isinstance(line, ast.ImportFrom)]
    for line in lines:
        assert all(alias.name == alias.asname for alias in line.names), "re-exports need `as`"
    return {alias.name: line.module for line in lines for alias in line.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_the_object_of_its_module_and_says_what_it_is(package):
    module, offered = import_module(package), stub(package)
    assert 5 <= len(offered) <= 15
    assert dir(module) == sorted(offered)
    for name, source in offered.items():
        found = getattr(module, name)
        assert found is getattr(import_module(source), name)
        assert source.startswith(f"{package}."), "a package offers its own"
        if inspect.isclass(found) or inspect.isfunction(found):
            assert len(inspect.getdoc(found) or "") > 20, name
        if inspect.isfunction(found):
            parameters = inspect.signature(found).parameters.values()
            assert all(p.annotation is not p.empty for p in parameters), name
    submodules = {info.name for info in pkgutil.iter_modules(module.__path__)}
    assert not submodules & offered.keys()


def test_the_facade_offers_what_the_packages_offer():
    facade = import_module("tumorboard")
    assert set(dir(facade)) == set().union(*(stub(package) for package in PACKAGES))
    for name in dir(facade):
        sources = [p for p in PACKAGES if name in stub(p)]
        assert getattr(facade, name) is getattr(import_module(sources[0]), name)
        assert len(sources) == 1, name


def test_importing_the_facade_takes_no_time_and_loads_nothing_heavy():
    code = (
        "import sys, time; began = time.perf_counter(); import tumorboard; dir(tumorboard); "
        "print(time.perf_counter() - began, *{'torch', 'pandas', 'flwr', 'matplotlib', 'pydantic'}"
        " & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    runs = [subprocess.check_output(command, env=environment, text=True).split() for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.2
    assert [loaded for _, *loaded in runs] == [[], [], []]


@pytest.mark.parametrize("commands", [f"{p}.operate.cli" for p in PACKAGES[1:]])
def test_help_of_a_group_of_commands_loads_only_the_command_line(commands):
    heavy = {"torch", "pandas", "flwr", "numpy", "pydantic", "grpc", "cryptography", "uvicorn"}
    code = f"import sys, {commands}; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["client.operate", "server.operate"])
def test_the_commands_have_all_that_they_call(package):
    for name, source in stub(package).items():
        assert getattr(import_module(package), name) is getattr(import_module(source), name)


def test_a_wrong_name_is_an_attribute_error_that_python_can_mend():
    facade = import_module("tumorboard")
    with pytest.raises(AttributeError, match="offers no 'simulat'") as caught:
        facade.simulat  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("simulat", facade)
    assert not hasattr(facade, "nothing")


def test_a_star_import_brings_every_name_and_a_submodule_still_imports():
    space = {}
    exec("from tumorboard import *\nfrom common import errors", space)
    assert set(dir(import_module("tumorboard"))) <= space.keys()
    assert space["errors"].__name__ == "common.errors"


def test_a_name_is_imported_once():
    offer, _ = lazy_names("common")
    module = import_module("common")
    vars(module).pop("Study", None)
    assert "Study" not in vars(module)
    assert offer("Study") is vars(module)["Study"]


@pytest.mark.slow
def test_a_type_checker_knows_the_types_of_the_facade(tmp_path):
    script = tmp_path / "notebook.py"
    script.write_text(
        "import tumorboard as tb\nreveal_type(tb.load_study)\ntb.simulat\n", encoding="utf-8"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", root / "pyproject.toml", script],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "-> common.study.study.Study" in done.stdout, done.stdout
    assert 'Module has no attribute "simulat"' in done.stdout
