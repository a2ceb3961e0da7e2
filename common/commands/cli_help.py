"""Correct the help texts of commands where typer and click do not work together.

Typer escapes brackets for a renderer that is not used here, loses the help of arguments under
click 8.5, and adds options for shell completion to every group; click cuts the summaries in lists
of commands short.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, get_type_hints

import click
import typer

COMPLETION = {"install_completion", "show_completion"}
SAID_BEFORE = "Positional arguments"


class PlainFormatter(click.HelpFormatter):
    """Writes brackets as brackets, and arguments once."""

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Write a section; what click 8.5 says again after typer is left out."""
        start = len(self.buffer)
        with super().section(name):
            yield
        if name == SAID_BEFORE:
            del self.buffer[start:]

    def write_dl(
        self, rows: Iterable[tuple[str, str | None]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write a list of terms and what they mean."""
        plain = [(term, (text or "").replace("\\[", "[")) for term, text in rows]
        super().write_dl(plain, col_max, col_spacing)


class PlainContext(click.Context):
    """A call whose help is written by `PlainFormatter`."""

    formatter_class = PlainFormatter


def with_plain_help(command: click.Command) -> click.Command:
    """Return the command after mending its help, and that of all commands below it."""
    command.context_class = PlainContext
    command.params = [p for p in command.params if p.name not in COMPLETION]
    command.short_help = command.short_help or first_sentence(command.help or "")
    helps = _declared_help(command.callback)
    for param in command.params:
        if getattr(param, "help", None) is None and param.name in helps:
            param.help = helps[param.name]
    if isinstance(command, typer.core.TyperGroup):
        command.suggest_commands = False  # click suggests as well
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_plain_help(below)
    return command


def first_sentence(text: str) -> str:
    r"""Return the first sentence of a help text on one line, without its full stop.

    Example:
        >>> first_sentence("Show `site.yaml`; nothing else.\n\nMore of it.")
        'Show `site.yaml`; nothing else'
    """
    paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return re.split(r"\.(?:\s|$)", paragraph, maxsplit=1)[0]


def _declared_help(callback: Callable[..., Any] | None) -> dict[str, str]:
    """Return parameter -> help, as the annotations of a command's function state it."""
    if callback is None:
        return {}
    hints = get_type_hints(inspect.unwrap(callback), include_extras=True)
    found = {}
    for name, hint in hints.items():
        for declared in getattr(hint, "__metadata__", ()):
            text = getattr(declared, "help", None)
            if text:
                found[name] = text
    return found
