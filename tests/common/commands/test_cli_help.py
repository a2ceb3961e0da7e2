"""Every command as a newcomer meets it: help, example, --json, and wrong input."""

import re
import shlex
import sys

import click
import pytest
from click.testing import CliRunner

from client.operate.cli import ORDER
from common.commands import cli
from common.commands.cli import first_sentence

SERVERS = {("site", "agent"), ("site", "relay"), ("site", "supernode")}
"""Processes that print no result."""


def commands(command=cli.root, path=()):
    """Every command below the root: path and command."""
    context = click.Context(command)
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(context):
        yield from commands(command.get_command(context, name), (*path, name))
    if command.invoke_without_command:
        yield path, command


ALL = {" ".join(path): (path, command) for path, command in commands()}


def test_all_groups_are_found():
    assert {name.split()[0] for name in ALL} >= {"study", "site", "server", "simulate", "audit"}
    assert "demo" in ALL


@pytest.mark.parametrize("name", ALL)
def test_help_is_whole(name):
    path, command = ALL[name]
    told = CliRunner().invoke(cli.root, [*path, "--help"])
    assert told.exit_code == 0, told.output
    assert "\\" not in told.output
    assert "completion" not in told.output
    assert "Positional" not in told.output
    for param in command.params:
        assert getattr(param, "help", None), f"{param.name} has no help"
        words = (param.help or "").split()[:3]
        assert re.search(r"\s+".join(map(re.escape, words)), told.output)


@pytest.mark.parametrize("name", ALL)
def test_the_example_works(name):
    path, command = ALL[name]
    example = re.match(r"Example: tumorboard (.*)", command.epilog or "", re.DOTALL)
    assert example, "no example"
    line = re.split(r"\s{2,}\(| > ", " ".join(example[1].split("\n")))[0]
    words = shlex.split(line)
    assert tuple(words[: len(path)]) == path
    known = {option for param in command.params for option in param.opts + param.secondary_opts}
    used = {word for word in words if word.startswith("--")}
    assert used <= known
    required = {param.opts[0] for param in command.params if param.required}
    positional = {name for name in required if not name.startswith("-")}
    assert required - positional <= used, "the example lacks a required option"


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name][0] not in SERVERS])
def test_programs_can_read_the_result(name):
    options = {option for param in ALL[name][1].params for option in param.opts}
    assert "--json" in options


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_option_is_one_message(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tumorboard", *ALL[name][0], "--no-such-option"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert "No such option" in told.err


def test_summaries_of_a_group_are_whole_sentences():
    told = CliRunner().invoke(cli.root, ["server", "--help"])
    assert "..." not in told.output.split("Commands:")[1]


def test_a_hospital_finds_its_commands_in_the_order_it_needs_them():
    told = CliRunner().invoke(cli.root, ["site", "--help"]).output.split("Commands:")[1]
    listed = re.findall(r"^  ([a-z-]+)  ", told, re.MULTILINE)
    assert listed == [*ORDER, "ledger"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One"),
        ("Reads `a.b` of\n  it; more.\n\nNot this.", "Reads `a.b` of it; more"),
        ("", ""),
        ("No stop", "No stop"),
    ],
)
def test_first_sentences(text, first):
    assert first_sentence(text) == first
