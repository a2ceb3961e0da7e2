"""Run `tumorboard server up`: the coordinator's processes, and the keeper of nodes and runs."""

from __future__ import annotations

import logging
import threading

from common.commands.cli_output import Output
from common.errors import RunError
from common.process.background import BackgroundStart
from common.process.stop_signals import stop_on_signals
from common.process.supervisor import Supervisor, check_not_running
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_commands import registered_nodes
from server.flower.superlink import is_superlink_healthy, server_processes, status_file
from server.operate.run_keeper import RunKeeper

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
        TumorboardError: It cannot run, in its own words, or does not serve in time.
    """
    check_not_running(status_file(folder))
    BackgroundStart(
        arguments=["server", "up", str(folder.root)],
        log=folder.superlink / "up.log",
        status=status_file(folder),
        is_ready=lambda: is_superlink_healthy(folder) and _knows_all(folder),
        ready_s=READY_S,
        failed="the SuperLink does not serve",
    ).run()


def _knows_all(folder: ConsortiumFolder) -> bool:
    try:
        nodes = registered_nodes(folder)
    except RunError:  # its health service answers a moment before it does
        return False
    return all(member.node_key in nodes for member in folder.roster().admitted)
