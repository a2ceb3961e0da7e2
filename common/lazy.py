"""Import the names that a package offers when they are first used (PEP 562)."""

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package.

    What it offers stands once, in its `__init__.pyi`, where editors and type checkers read it
    too: `from module import Name as Name`, or `from package import *` for all that another such
    package offers (as scientific Python's SPEC 1 does).

    Args:
        package: `__name__` of the package.

    Example:
        >>> offer, names = lazy_names("common")
        >>> "Study" in names(), offer("Study").__name__
        (True, 'Study')
    """

    @cache
    def modules() -> dict[str, str]:
        """Return name -> module that has it."""
        stub = Path(str(sys.modules[package].__file__)).with_suffix(".pyi")
        module_of = {}
        for line in ast.parse(stub.read_text(encoding="utf-8")).body:
            for alias in line.names if isinstance(line, ast.ImportFrom) else ():
                assert isinstance(line, ast.ImportFrom)
                source = str(line.module)
                names = dir(import_module(source)) if alias.name == "*" else [alias.name]
                module_of.update(dict.fromkeys(names, source))
        return module_of

    def names() -> list[str]:
        return sorted(modules())

    def offer(name: str) -> Any:
        if name == "__all__":
            return names()
        if name not in modules():
            message = f"module '{package}' offers no '{name}'; dir({package}) lists what it does"
            raise AttributeError(message, name=name, obj=sys.modules[package])
        value = getattr(import_module(modules()[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return offer, names
