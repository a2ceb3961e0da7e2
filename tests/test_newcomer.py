"""The newcomer's page of the handbook, followed word for word with real processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from common.process.free_port import free_port

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "deploy" / "handbook" / "newcomer.md"
SITES = ("hospital-a", "hospital-b", "hospital-c")
PORTS = ("8443", "8765", "8766")


def blocks() -> list[str]:
    """The fenced commands of the page, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def on_free_ports(script: str, ports: dict[str, str]) -> str:
    """The script with other ports, since another consortium may run on this machine."""
    for old, new in ports.items():
        script = re.sub(rf"\b{old}\b", new, script)
    return script


def test_every_port_and_every_step_is_on_the_page():
    text = "\n".join(blocks())
    assert all(port in text for port in PORTS)
    for command in (
        "server provision",
        "site request",
        "server admit",
        "site install-kit",
        "study freeze",
        "site approve",
        "site join",
        "server run",
        "audit log verify",
        "site leave",
    ):
        assert f"tumorboard {command}" in text
    assert len(re.findall(r"^## \d+\. ", PAGE.read_text(), re.MULTILINE)) == len(blocks())


@pytest.fixture
def folder():
    """An empty folder with a short path; afterwards nothing of it runs."""
    made = Path(tempfile.mkdtemp(prefix="nc", dir="/tmp"))
    yield made
    for site in SITES:
        tumorboard(made, "site", "leave", "--site", site)
    tumorboard(made, "server", "stop", "consortium", "--down")
    shutil.rmtree(made, ignore_errors=True)


def environment() -> dict[str, str]:
    tools = Path(sys.executable).parent
    path = f"{tools}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def tumorboard(folder, *words) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from common.commands.cli import main; main()", *words]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)


def seen_on(url: str) -> dict | None:
    """What a page says to programs, or None while it is not served."""
    try:
        with urllib.request.urlopen(f"{url}/status.json", timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_can_be_followed_word_for_word(folder):
    ports = {port: str(free_port()) for port in PORTS}
    script = "set -eo pipefail\n" + on_free_ports("\n".join(blocks()), ports)
    (folder / "page.sh").write_text(script)
    rounds, hospital = set(), set()
    with (folder / "out.log").open("w") as log:
        newcomer = subprocess.Popen(
            ["bash", "page.sh"],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            while newcomer.poll() is None:
                told = seen_on(f"http://127.0.0.1:{ports['8765']}")
                rounds |= {(told["phase"], told["round"])} if told else set()
                own = seen_on(f"http://127.0.0.1:{ports['8766']}")
                hospital |= {own["agent"]["state"]} if own and own["agent"] else set()
                time.sleep(0.5)
        finally:
            if newcomer.poll() is None:
                os.killpg(newcomer.pid, signal.SIGTERM)
    said = (folder / "out.log").read_text()
    assert newcomer.returncode == 0, said[-4000:]
    assert "Traceback" not in said
    assert re.search(r"^newcomer-[0-9a-f]{12} is done\.$", said, re.MULTILINE)
    assert ("done", 6) in rounds
    assert len({number for _, number in rounds}) >= 3
    assert "training" in hospital
    check_what_is_left(folder)


def check_what_is_left(folder: Path) -> None:
    """Report, ledgers and both kinds of audit log tell the same run."""
    (run,) = (folder / "consortium" / "runs").iterdir()
    report = json.loads((run / "report.json").read_text())
    assert report["rounds"] == 6
    assert report["privacy"]["epsilon"] == 6.0
    assert report["synthetic"] is True
    coordinator = lines(folder / "consortium" / "audit.jsonl")
    committed = [line["round"] for line in coordinator if line["event"] == "round_committed"]
    assert committed == [1, 2, 3, 4, 5, 6]
    for site in SITES:
        ledger = lines(folder / site / "private" / "ledger.jsonl")
        spent = [line["entry"]["round"] for line in ledger if line["kind"] == "reserve"]
        assert spent == [1, 2, 3, 4, 5, 6, 0]
        calls = lines(folder / site / "private" / "audit.jsonl")
        trained = {line["round"] for line in calls if line["facts"].get("method") == "train"}
        assert trained == {1, 2, 3, 4, 5, 6}
        assert 5.98 < report["privacy"]["epsilon_spent"][site] <= 6.0  # rounded up, and never above
    assert (folder / "metrics.csv").read_text().startswith("round,metric,value")


def lines(file: Path) -> list[dict]:
    """Every line of a JSON-lines file."""
    return [json.loads(line) for line in file.read_text().splitlines()]
