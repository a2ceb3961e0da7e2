"""`tumorboard server up`: the coordinator's processes, and the keeper of nodes and runs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time

from common.cli_output import Output
from common.errors import ConfigError
from common.supervisor import Supervisor, stop_on_signals
from server.consortium_folder import ConsortiumFolder
from server.node_enrolment import registered_nodes
from server.run_keeper import RunKeeper
from server.superlink import is_superlink_healthy, server_processes, status_file

READY_S = 90.0


def serve(folder: ConsortiumFolder, output: Output) -> None:
    """Run everything until SIGTERM or SIGINT.

    Raises:
        ConfigError: It runs already, or a file of the consortium is missing.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    children, facts = server_processes(folder)
    stop = stop_on_signals()
    keeper = threading.Thread(target=RunKeeper(folder).run, args=(stop,), daemon=True)
    supervisor = Supervisor(children, status_file(folder), facts=facts)
    output.say(f"Starting the SuperLink; logs in {folder.superlink}")

    def ready() -> None:
        output.say(f"Serving at {folder.consortium().listen}. Interrupt to end.")
        keeper.start()

    supervisor.run(stop, ready=ready)


def serve_in_background(folder: ConsortiumFolder) -> None:
    """Start `tumorboard server up` on its own; returns when it serves and knows all hospitals.

    Raises:
        ConfigError: It ends at once, or does not serve in time.
    """
    log = folder.superlink / "up.log"
    entry = "from common.cli import main; main()"
    command = [sys.executable, "-c", entry, "server", "up", str(folder.root)]
    with log.open("w") as stream:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            raise ConfigError(
                "the server could not be started",
                where=str(log),
                why=log.read_text(encoding="utf-8").strip(),
                cure="mend what the log names and run the same command again",
            )
        if is_superlink_healthy(folder) and _knows_all(folder):
            return
        time.sleep(0.3)
    raise ConfigError(
        "the SuperLink is not healthy",
        where=str(folder.superlink_log),
        why=f"not within {READY_S:.0f} s",
        cure="see the log; `tumorboard server stop --down` ends what runs",
    )


def _knows_all(folder: ConsortiumFolder) -> bool:
    nodes = registered_nodes(folder)
    return all(member.node_key in nodes for member in folder.roster().admitted)
