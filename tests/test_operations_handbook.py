"""The handbook's way to join, followed word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "deploy" / "handbook" / "operations.md"


def blocks():
    """Shell blocks of the page, in order."""
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_blocks_of_the_page_work_in_their_order(tmp_path):
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "tumorboard"
    command.write_text(f"#!{sys.executable}\nfrom common.commands.cli import main\nmain()\n")
    command.chmod(0o755)
    script = "set -eu\n" + "\n".join(blocks())
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hospital-a" / "connection" / "connection.yaml").is_file()
    fingerprints = re.findall(r"(?:[0-9a-f]{4} ){7}[0-9a-f]{4}", done.stdout)
    # of the request, of the kit, of the roster and of the keys on it, each on both sides
    assert len(set(fingerprints)) == 4
    assert len(fingerprints) == 8
    assert "chain and signatures are whole" in done.stdout


def test_commands_the_page_names_exist():
    import typer

    from client.operate.cli import app as site
    from common.commands.audit_cli import app as audit
    from server.operate.cli import app as server

    known = {}
    for name, app in (("site", site), ("server", server), ("audit", audit)):
        known[name] = typer.main.get_command(app).commands
    named = re.findall(r"tumorboard (site|server|audit) ([a-z-]+)", PAGE.read_text())
    assert named
    missing = {f"{group} {word}" for group, word in named if word not in known[group]}
    assert missing == set()
