"""A hospital whose disk is full says so itself; a real agent whose files may not grow."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from joined_consortium import make_hospital
from tiny_consortium import tiny_study
from typer.testing import CliRunner

from client.agent.service import ask_agent, is_healthy
from client.agent.socket_call import AgentRefusalError, call_agent
from client.operate.cli import app
from client.page.site_files import LedgerReader, read_site_files
from client.page.site_problems import site_problems
from common.contract import canonical_json
from common.errors import ErrorCode
from common.protocol.protocol import HandshakeRequest
from common.trust.provenance import code_digest

ENTRY = "from common.commands.cli import main; main()"


@pytest.fixture
def hospital():
    """A hospital whose agent runs: its site folder, socket and agent."""
    with tempfile.TemporaryDirectory(prefix="tb") as name:
        folder = Path(name)
        policy = make_hospital(folder, "site-a")
        command = ["site", "agent", "--site", str(folder / "site-a")]
        with subprocess.Popen(
            [sys.executable, "-c", ENTRY, *command], stderr=subprocess.PIPE, text=True
        ) as agent:
            socket = policy.state.parent / "agent.sock"
            deadline = time.monotonic() + 60
            while not is_healthy(socket, timeout_s=0.5):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield folder / "site-a", socket, agent
            agent.kill()


def handshake():
    study = tiny_study()
    return HandshakeRequest(
        run_id="run-1",
        study_json=canonical_json(study.model_dump(mode="json")),
        study_digest=study.digest(),
        code_digest=code_digest(),
    )


def call(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def test_the_hospital_learns_path_and_cure_and_when_it_is_over(hospital):
    site, socket, agent = hospital
    audit, process = socket.with_name("audit.jsonl"), psutil.Process(agent.pid)
    limits = process.rlimit(psutil.RLIMIT_FSIZE)
    assert json.loads(call("status", "--site", site, "--json").stdout)["problems"] == []
    assert "all that the agent writes can be written" in call("doctor", "--site", site).stdout
    process.rlimit(psutil.RLIMIT_FSIZE, (audit.stat().st_size + 50, limits[1]))
    for _ in range(2):
        with pytest.raises(AgentRefusalError) as caught:
            ask_agent(socket, "handshake", handshake())
        assert caught.value.code == ErrorCode.DISK_FULL

    told = json.loads(call("status", "--site", site, "--json").stdout)["problems"]
    assert [problem["code"] for problem in told] == [ErrorCode.DISK_FULL]
    assert str(socket.parent) in told[0]["found"]
    shown = call("status", "--site", site)
    assert shown.exit_code == 1
    assert f"[TB910] the agent could not write below {socket.parent}" in shown.stdout
    assert "fix: free space on the disk" in shown.stdout
    doctor = call("doctor", "--site", site).stdout
    assert f"[TB910] the agent could not write below {socket.parent}" in doctor

    process.rlimit(psutil.RLIMIT_FSIZE, limits)
    assert not ask_agent(socket, "handshake", handshake()).accepted  # nobody approved the study
    assert json.loads(call("status", "--site", site, "--json").stdout)["problems"] == []
    agent.terminate()
    log = agent.communicate(timeout=30)[1]
    assert (
        f"[TB910] a file has reached the size that is allowed to this process\n  where: {audit}"
        in log
    )
    assert f"{socket.parent} can be written again; calls refused meanwhile: 2" in log


def test_the_relay_cannot_ask_which_place_is_full(hospital):
    with pytest.raises(AgentRefusalError):
        call_agent(hospital[1], "disk.private", "{}", b"", patience_s=0.0)


def test_doctor_tries_to_write_itself(hospital):
    site = hospital[0]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        told = call("doctor", "--site", site)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.exit_code == 1
    assert (
        f"[TB910] a file has reached the size that is allowed to this process ({site}"
        in told.stdout
    )
    assert "ulimit -f" in told.stdout
    assert not list(site.rglob(".room.*"))


def test_a_disk_without_room_is_told_once_and_on_the_page(tmp_path, monkeypatch):
    make_hospital(tmp_path, "site-a")
    (tmp_path / "site-a" / "private" / "state").mkdir(exist_ok=True)
    monkeypatch.setattr("client.site.site_disks.free_bytes", lambda _folder: 1000)
    shown = call("status", "--site", tmp_path / "site-a", "--json").stdout
    assert len(json.loads(shown)["problems"]) == 1
    files = read_site_files(tmp_path / "site-a", LedgerReader())
    told = [problem for problem in site_problems(files) if problem.code == ErrorCode.DISK_FULL]
    assert [problem.what for problem in told] == [
        f"No room below {tmp_path}/site-a/private: 0.0 MiB free."
    ]
