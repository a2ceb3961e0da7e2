"""Run the `tumorboard` command: find command groups by entry point, import one when called.

Client and server stay independent: each declares its own group, and this file knows neither.
"""

import ast
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any, get_type_hints

import click
import typer

from common.errors import ErrorCode, TumorboardError
from common.storage.full_disk import disk_full_of

GROUP = "tumorboard.commands"


class LazyGroup(click.Group):
    """A click group whose commands are imported only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the installed groups."""
        return sorted(_found())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one group, or None if it is unknown."""
        entry_point = _found().get(cmd_name)
        if entry_point is None:
            return None
        app: Any = entry_point.load()
        return with_plain_help(typer.main.get_command(app))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names.

        Raises:
            UsageError: There is none; one of a similar name is suggested.
        """
        near = get_close_matches(args[0], self.list_commands(ctx))
        if near and args[0] not in near:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the groups by the first line of their modules, without importing them."""
        rows = [(name, _first_line(entry)) for name, entry in sorted(_found().items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _first_line(entry: EntryPoint) -> str:
    module = importlib.util.find_spec(entry.module)
    if module is None or module.origin is None:
        return "(not installed completely)"
    docstring = ast.get_docstring(ast.parse(Path(module.origin).read_text(encoding="utf-8")))
    return (docstring or "").split("\n", maxsplit=1)[0]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: tumorboard demo --out demo-run",
)
@click.version_option(version("tumorboard"), message="%(version)s")
def root() -> None:
    """Train multimodal oncology models across hospitals; no patient row leaves one.

    Research software for decision support, not a medical device.
    """


def _of_the_system(error: OSError) -> TumorboardError:
    full = disk_full_of(error)
    if full is not None:
        return full
    return TumorboardError(
        f"the system refuses: {error.strerror or error}",
        where=str(error.filename or ""),
        why="a file or folder cannot be read or written",
        cure="check that the path exists, its permissions and the free space, then run the same "
        "command again",
        code=ErrorCode.CONFIG,
    )


def main() -> None:
    """Run the command line; a user's mistake gives one message, never a traceback."""
    try:
        status = root.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.stderr.write("Interrupted. Run the same command again to continue.\n")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TumorboardError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_status)
    except BrokenPipeError:  # the reader of a pipe, e.g. `| head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        sys.stderr.write(f"{_of_the_system(error)}\n")
        sys.exit(1)
    # Outside standalone mode click returns the status of `typer.Exit` instead of raising it.
    if isinstance(status, int):
        sys.exit(status)


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
    """Return the command with corrected help, and so for all commands below it.

    Typer escapes brackets for a renderer that is not used here, loses the help of arguments under
    click 8.5, and adds options for shell completion to every group; click cuts the summaries in
    lists of commands short.
    """
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
    texts = {}
    for name, hint in hints.items():
        for option in getattr(hint, "__metadata__", ()):
            text = getattr(option, "help", None)
            if text:
                texts[name] = text
    return texts
