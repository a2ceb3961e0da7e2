"""SuperLink, SuperNodes and agents as real processes, ended whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path


def free_port():
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(folder, *before):
    """Variables of Flower's processes; `before` are folders to put first on the PATH."""
    path = [*(str(each) for each in before), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": ":".join(path),
        "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
    }


@contextmanager
def processes(folder):
    """Yield a starter; every process group it started is ended.

    The starter takes a command, and `path_first`, folders that come first on its PATH; it logs
    to `folder/log-N` and returns the process with that file as its attribute `log`.
    """
    started = []

    def start(*command, path_first=()):
        log = folder / f"log-{len(started)}"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [str(part) for part in command],
                env=environment(folder, *path_first),
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        process.log = log
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition, seconds):
    """Wait until the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def listens(port):
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
