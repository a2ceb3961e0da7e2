"""`server page` and `site page` as processes: they say where they are, serve, and end when told."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from page_runs import WrittenRun

ROOT = Path(__file__).parents[3]
ENTRY = [sys.executable, "-c", "from common.commands.cli import main; main()"]


@contextmanager
def started(*words):
    """A command as a process; ended afterwards."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*ENTRY, *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def folders(tmp_path):
    """Words of the two commands, over a run and over a hospital."""
    WrittenRun(tmp_path / "run").enrol()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "site.yaml").write_text("site_id: hospital-a\n")
    return {
        "server": ["server", "page", tmp_path / "run"],
        "site": ["site", "page", "--site", tmp_path / "site"],
    }


@pytest.mark.parametrize(
    ("side", "told", "number"),
    [("server", "Ready: enough sites", signal.SIGTERM), ("site", "hospital-a", signal.SIGINT)],
)
def test_a_page_is_served_until_it_is_told_to_end(folders, side, told, number):
    with started(*folders[side], "--port", 0, "--json") as process:
        url = json.loads(process.stdout.readline())["url"]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert told in answer.read().decode()
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""


def test_a_taken_port_is_one_message(folders):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(*folders["server"], "--port", port) as process:
            assert process.wait(60) == 2
            assert process.stderr.read().startswith("[TB100] the page cannot listen there")
