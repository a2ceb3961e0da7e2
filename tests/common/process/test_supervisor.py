"""Processes that are kept running: real ones, killed for real."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.process.supervisor import Child, Supervisor, read_supervised, stop_supervised

SLEEP = (sys.executable, "-c", "import time; time.sleep(300)")
SCRIPT = """
import sys
from pathlib import Path
from common.process.stop_signals import stop_on_signals
from common.process.supervisor import Child, Supervisor
folder = Path(sys.argv[1])
child = Child("sleeper", (sys.executable, "-c", "import time; time.sleep(300)"), folder / "log")
Supervisor([child], folder / "status.json", facts={"port": 7}).run(stop_on_signals())
"""


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return condition()


def child_pid(status):
    found = read_supervised(status)
    return found.children["sleeper"]["pid"] if found else None


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
def supervised(tmp_path):
    status = tmp_path / "status.json"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)])
    until(lambda: child_pid(status))
    yield status, process
    process.kill()
    process.wait()


def test_killed_child_is_started_again(supervised):
    status, _ = supervised
    first = child_pid(status)
    os.kill(first, signal.SIGKILL)
    second = until(lambda: child_pid(status) not in (None, first) and child_pid(status))
    told = read_supervised(status)
    assert told.children["sleeper"]["restarts"] == 1
    assert told.children["sleeper"]["last_exit"] == -signal.SIGKILL
    assert told.facts == {"port": 7}
    assert is_alive(second)


def test_stop_ends_supervisor_and_children(supervised):
    status, process = supervised
    child = child_pid(status)
    assert stop_supervised(status, timeout_s=20)
    assert process.wait(timeout=5) == 0
    assert not is_alive(child)
    assert read_supervised(status) is None
    assert stop_supervised(status)


def test_children_end_with_a_killed_supervisor(supervised):
    status, process = supervised
    child = child_pid(status)
    process.kill()
    process.wait()
    until(lambda: not is_alive(child))
    assert read_supervised(status) is None


def test_second_supervisor_is_refused(supervised, tmp_path):
    with pytest.raises(ConfigError, match="already"):
        Supervisor([], supervised[0]).run(threading.Event())
    assert child_pid(supervised[0])


def test_program_that_is_missing_is_named(tmp_path):
    child = Child("ghost", ("/no/such/program",), tmp_path / "log")
    with pytest.raises(ConfigError, match="ghost"):
        Supervisor([child], tmp_path / "status.json").run(threading.Event())


def test_ready_is_told_once_all_are_healthy(tmp_path):
    stop, told, healthy = threading.Event(), [], []
    child = Child("sleeper", SLEEP, tmp_path / "log", is_healthy=lambda: bool(healthy))

    def ready():
        told.append(bool(healthy))
        stop.set()

    thread = threading.Timer(0.8, lambda: healthy.append(1))
    thread.start()
    Supervisor([child], tmp_path / "status.json").run(stop, ready=ready)
    assert told == [True]


def test_child_that_keeps_failing_waits_longer_each_time(tmp_path):
    stop = threading.Event()
    child = Child("broken", (sys.executable, "-c", "raise SystemExit(3)"), tmp_path / "log")
    supervisor = Supervisor([child], tmp_path / "status.json")
    threading.Timer(4.0, stop.set).start()
    supervisor.run(stop)
    running = supervisor._running[0]
    assert running.exit_status == 3
    assert 2 <= running.restarts <= 4
