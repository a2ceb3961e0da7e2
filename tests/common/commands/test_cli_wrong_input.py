"""Any file in any place of any command gives one message and an exit status, never a traceback."""

import subprocess
import sys

import click
import pytest

from common.commands import cli

SERVE = {
    ("server", "page"),
    ("site", "page"),
    ("site", "agent"),
    ("server", "up"),
    ("site", "join"),
}
LONG = {("demo",), ("simulate", "run"), ("simulate", "compare"), ("simulate", "consortium")}
MAKE = {("server", "provision"), ("study", "init"), ("site", "init")}
"""Commands that make what is missing."""

FILES = {
    "missing": None,
    "binary.yaml": bytes(range(256)) * 4,
    "empty.json": b"",
    "list.yaml": b"- 1\n- 2\n",
    "deep.json": b"[" * 50_000,
    "long.yaml": b"site_id: " + b"a" * 50_000,
}


def commands(command=cli.root, path=()):
    """Every command that ends by itself and reads a file."""
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))
    elif path not in SERVE | LONG | MAKE and any(is_path(p) for p in command.params):
        yield path, command


def is_path(param) -> bool:
    return "path" in getattr(param.type, "name", "")


def words(command, file) -> list[str]:
    """The command line with `file` for every path that is asked for."""
    line = []
    for param in command.params:
        if param.name == "help" or not (param.required or isinstance(param, click.Argument)):
            continue
        value = file if is_path(param) else {"integer": "5", "float": "0.5"}.get(param.type.name)
        value = value or ("0.5" if "float" in param.type.name else "5")
        line += [value] if isinstance(param, click.Argument) else [param.opts[0], value]
    return line


def call(monkeypatch, capsys, *line) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["tumorboard", *map(str, line)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code, capsys.readouterr().err


ALL = {" ".join(path): (path, command) for path, command in commands()}


@pytest.mark.parametrize("name", ALL)
def test_wrong_files(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path, command = ALL[name]
    for file, content in FILES.items():
        if content is not None:
            (tmp_path / file).write_bytes(content)
        status, told = call(monkeypatch, capsys, *path, *words(command, file))
        assert status in (1, 2, 3, 4, 5), f"{file}: {told}"
        assert "Traceback" not in told
        assert told.count("[TB") == 1 or "Usage:" in told, f"{file}: {told}"
        assert "TB900" not in told
        assert len(told) < 2000


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["sever", "status"], "Did you mean 'server'?"),
        (["server", "stauts", "x"], "Did you mean 'status'?"),
        (["nothing-like-it"], "No such command 'nothing-like-it'"),
    ],
)
def test_a_mistyped_command_is_suggested_once(line, told, monkeypatch, capsys):
    status, error = call(monkeypatch, capsys, *line)
    assert status == 2
    assert error.count("Did you mean") == told.count("Did you mean")
    assert told in error


def test_what_the_system_refuses_is_one_message(monkeypatch, capsys):
    status, told = call(monkeypatch, capsys, "study", "init", "/proc/none/study.yaml")
    assert status in (1, 2)
    assert told.startswith("[TB100]")
    assert "/proc/none" in told


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [
        sys.executable,
        "-c",
        "from common.commands.cli import main; main()",
        "study",
        "schema",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait() in (0, 1, 141)
