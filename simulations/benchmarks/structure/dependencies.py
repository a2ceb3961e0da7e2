"""Compare the dependencies that pyproject declares with the code that is installed with them."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from simulations.benchmarks.structure.sources import Module

CODE_OF_EXTRA: dict[str, tuple[str, ...]] = {
    "": ("common", "client", "server"),
    "pathology": ("client",),
    "radiology": ("client",),
    "text": ("client",),
    "explain": ("client",),
    "tracking": ("server",),
    "simulate": ("simulations",),
}
"""Extra -> packages whose code it is for; "" is what everybody installs. Tests are for `dev`."""

WITHOUT_IMPORT = {
    "openslide-bin": "the C library that openslide-python loads",
    "pytest-xdist": "`make test` runs two processes",
    "sqlalchemy": "MLflow's store in a database",
}
"""Distribution -> what it does here although nothing names it."""


def declared(root: Path) -> dict[str, list[str]]:
    """Return extra -> distributions that pyproject declares; "" for those of everybody."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {
        extra: [re.split(r"[\[<>=!~ ;]", r)[0] for r in needs] for extra, needs in lists.items()
    }
    return {extra: [n for n in found if n != project["name"]] for extra, found in names.items()}


def optional_imports(root: Path) -> set[str]:
    """Return the import names of the distributions that only an extra installs."""
    lists = declared(root)
    base = {name for need in lists.pop("") for name in import_names(need)}
    return {
        name for needs in lists.values() for need in needs for name in import_names(need)
    } - base


def import_names(name: str) -> set[str]:
    """Return the names under which a distribution is imported; empty where it is not installed."""
    return {package for package, owners in _owners().items() if _plain(name) in owners}


@cache
def _owners() -> dict[str, set[str]]:
    return {
        package: set(map(_plain, owners)) for package, owners in packages_distributions().items()
    }


def unused(root: Path, modules: Mapping[str, Module]) -> Iterator[str]:
    """Yield each dependency that no code uses which is installed with it, as `extra: name`."""
    for extra, needs in declared(root).items():
        used: set[str] = set()
        text = ""
        if extra in CODE_OF_EXTRA:
            packages = CODE_OF_EXTRA[extra]
            used = _imported(m for m in modules.values() if m.name.split(".")[0] in packages)
        else:
            text = _tests_and_tools(root)
        for need in needs:
            names = import_names(need)
            known = bool(names & used) or any(
                _mentions(text, name) for name in names | _tools(need)
            )
            if not known and need not in WITHOUT_IMPORT:
                yield f"{extra or 'everybody'}: {need}"


def _imported(modules: Iterable[Module]) -> set[str]:
    return {t.split(".")[0] for m in modules for t in (*(i.target for i in m.imports), *m.required)}


def _tests_and_tools(root: Path) -> str:
    tests = [path.read_text(encoding="utf-8") for path in (root / "tests").rglob("*.py")]
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    tools = re.sub(r"^\[project\.optional-dependencies\].*?^\[", "[", project, flags=re.M | re.S)
    return "\n".join([*tests, (root / "Makefile").read_text(encoding="utf-8"), tools])


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def _tools(name: str) -> set[str]:
    """Return the commands and plugins of a distribution, and what it wraps or types."""
    typed = re.sub(r"^types-|-(stubs|bin|py)$", "", name)
    try:
        points = {point.name for point in distribution(name).entry_points}
    except PackageNotFoundError:
        points = {name}  # not installed here
    return points | ({typed.removeprefix("py"), typed} if typed != name else set())


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
