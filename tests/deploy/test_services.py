"""The commands of the services, with real processes: healthy, revoked, and by the units' lines."""

import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from flower_processes import free_port, processes, wait_for
from joined_consortium import join, make_consortium, make_hospital

from common.process.deploy_files import deploy_file
from common.trust.audit_log import read_audit
from server.consortium.provision_roster import revoke

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ENTRY = [sys.executable, "-c", "from common.commands.cli import main; main()"]


def tumorboard(*words, check=True):
    done = subprocess.run(
        [*ENTRY, *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@contextmanager
def running():
    """A consortium that is up, and one hospital that has not joined yet."""
    with tempfile.TemporaryDirectory(prefix="tb") as name:
        folder = Path(name)
        consortium, policy = make_consortium(folder), make_hospital(folder, "a")
        connection = join(consortium, policy, folder)
        (folder / "a" / "features").mkdir()
        tumorboard("server", "up", consortium.root, "--background")
        try:
            yield folder, consortium, connection
        finally:
            tumorboard("site", "leave", "--site", folder / "a")
            tumorboard("server", "stop", consortium.root, "--down")


def nodes_online(consortium):
    log = consortium.superlink_log.read_text()
    return len(re.findall(r"\[Fleet.ActivateNode\] Activated", log))


def statuses(done):
    return {f["check"]: f["status"] for f in json.loads(done.stdout)["findings"]}


def test_both_doctors_see_healthy_processes_and_a_revoked_hospital_is_out_in_seconds():
    with running() as (folder, consortium, _):
        tumorboard("site", "join", "--site", folder / "a", "--background")
        wait_for(lambda: nodes_online(consortium) == 1, 60)
        server = statuses(tumorboard("server", "doctor", consortium.root, "--json"))
        assert (server["superlink"], server["ports"]) == ("ok", "ok")
        site = statuses(tumorboard("site", "doctor", "--site", folder / "a", "--json"))
        wanted = ("server", "supernode", "agent", "site kit", "site gate")
        assert {site[check] for check in wanted} == {"ok"}

        revoke(consortium, "a", "left")
        started = time.monotonic()
        refused = re.compile(r'POST /v1/fleet/[a-z-]+ HTTP/1.1" 401')
        wait_for(lambda: refused.search(consortium.superlink_log.read_text()), 60)
        assert time.monotonic() - started < 30
        key = consortium.audit_public_key()
        events = ("node_unregistered", "control_called", "caller_refused")
        wait_for(lambda: {r.event for r in read_audit(consortium.audit, key)} >= {*events}, 20)
        log = (folder / "a" / "private" / "log" / "supernode.log").read_text
        wait_for(lambda: "[code: 2004]" in log(), 90)


def test_the_units_of_a_hospital_work_as_they_are_written():
    """Their command lines, with this test's paths and ports in place of an installation's."""
    with running() as (folder, consortium, connection), processes(folder) as start:
        state, run = folder / "relay", folder / "run"
        state.mkdir()
        run.mkdir(mode=0o750)
        (state / "credentials").mkdir()
        port, health = str(free_port()), str(free_port())
        for name, source in (("node.key", "private/node.key"), ("ca.crt", "connection/ca.crt")):
            (state / "credentials" / name).write_bytes((folder / "a" / source).read_bytes())
            (state / "credentials" / name).chmod(0o600)
        changes = {
            "/opt/tumorboard/bin/python": sys.executable,
            "/opt/tumorboard/bin/tumorboard": shlex.join(ENTRY),
            "/srv/tumorboard/site": str(folder / "a"),
            "/var/lib/tumorboard-relay": str(state),
            "/run/tumorboard": str(run),
            "${CREDENTIALS_DIRECTORY}": str(state / "credentials"),
            "${TUMORBOARD_SUPERLINK}": connection.connection().superlink,
            "9091": port,
            "9093": health,
        }
        environment = (connection.root / "supernode.env").read_text()
        assert environment == f"TUMORBOARD_SUPERLINK={connection.connection().superlink}\n"
        started = []
        for name in ("agent", "supernode", "relay"):
            unit = (deploy_file("site") / "systemd" / f"tumorboard-{name}.service").read_text()
            for key in ("ExecStartPre", "ExecStart"):
                for line in re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE):
                    for old, new in changes.items():
                        line = line.replace(old, new)
                    process = start(*shlex.split(line))
                    if key == "ExecStart":
                        started.append(process)
                    else:
                        assert process.wait(timeout=20) == 0
        wait_for(lambda: nodes_online(consortium) == 1, 90)
        found = tumorboard(
            "site", "doctor", "--site", folder / "a", "--socket", run / "agent.sock", "--json"
        )
        assert statuses(found)["agent"] == "ok"
        assert all(process.poll() is None for process in started)
        assert (run / "agent.sock").stat().st_mode & 0o777 == 0o660
