"""Run hospitals' agents as processes of this machine, for a coordinator that may lie to them.

Flower is left out: a coordinator can send whatever it likes, so what counts is what the agents do
with it. Patients are SYNTHETIC.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client.agent.service import ask_agent, is_healthy
from client.agent.site_agent import SiteAgent
from client.site.approval import make_approval
from client.site.enrol_connection import SiteConnection
from client.site.enrol_install import install_kit
from client.site.site_folder import load_policy, record_consent
from common.commands.cli_output import Output
from common.errors import RunError
from common.protocol.protocol import AgentApi
from common.study.site_policy import Approval, SitePolicy
from common.study.study import Study
from server.consortium.provision_kit import write_kit
from server.flower.bundle import bundle_digest
from server.run.rounds import RunResult
from simulations.consortium.local_consortium import (
    LocalConsortium,
    local_study,
    make_consortium,
)
from simulations.engines.consortium_run import run_in_process
from simulations.synthetic.spec import demo_spec

START_S = 180.0
ENTRY = "from common.commands.cli import main; main()"
Wrap = Callable[[str, AgentApi], AgentApi]
"""Returns a hospital's agent as the coordinator of a run reaches it."""


class SocketAgent:
    """The agent behind a Unix socket; implements `common.protocol.protocol.AgentApi`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __getattr__(self, method: str) -> Callable[[Any], Any]:
        """Return the call of a method."""
        return lambda request: ask_agent(self._socket, method, request)


def wide_consent(policy: SitePolicy, study: Study, *, evaluation: float = 90.0) -> Approval:
    """Return a hospital's consent to many runs of a study."""
    return make_approval(
        policy,
        study,
        announced=None,
        epsilon=90.0,
        fallback_epsilon=None,
        evaluation_epsilon=evaluation,
    )


class AgentsOnTrial:
    """Hospitals with identities, kits and patients, and their agents.

    Args:
        root: New folder; short, for the sockets lie in it.
        sites: Hospitals.
        patients: Patients of an average hospital.
        processes: Every agent in a process of its own; else all in this one, for quick tests.
    """

    def __init__(self, root: Path, *, sites: int, patients: int, processes: bool) -> None:
        self.root, self._spec = root, demo_spec(sites=sites, patients=patients)
        self.consortium: LocalConsortium = make_consortium(root, self._spec)
        self._in_processes, self._runs = processes, 0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for site_id in self.homes:
            self._install_roster(site_id)
        self.agents: dict[str, AgentApi] = {}

    @property
    def homes(self) -> Mapping[str, Path]:
        """Hospital -> folder of its site.yaml."""
        return self.consortium.sites

    def _install_roster(self, site_id: str) -> None:
        """Install a kit with the roster of all; the first ones know those before them only."""
        home, kit = self.homes[site_id], self.root / "kits-of-all" / site_id
        folder = self.consortium.folder
        connection = write_kit(folder, site_id, kit, bundle_digest=bundle_digest())
        own = SiteConnection.of_site(home)
        install_kit(load_policy(home), kit, own, fingerprint=connection.fingerprint)

    def agreed(self, **privacy: Any) -> Study:
        """Return a study of two rounds in mode distributed to which every hospital consents."""
        n_sites = len(self.homes)
        study = local_study(
            self.consortium,
            self._spec,
            mode="distributed",
            rounds=2,
            quorum={"min_sites": 3, "round_timeout_s": 120.0},
            privacy={"epsilon": 4.0, "colluders": 1, "n_min": n_sites - 2} | privacy,
        )
        for home in self.homes.values():
            policy = load_policy(home)
            record_consent(policy, wide_consent(policy, study))
        return study

    def start(self, site_id: str) -> None:
        """Start, or start again, a hospital's agent.

        Raises:
            TumorboardError: It does not start.
        """
        self.stop(site_id)
        home = self.homes[site_id]
        if not self._in_processes:
            self.agents[site_id] = SiteAgent(load_policy(home), reload=lambda: load_policy(home))
            return
        socket = home / "s" / "a"
        socket.parent.mkdir(mode=0o700, exist_ok=True)
        command = [sys.executable, "-c", ENTRY, "site", "agent", "--site", str(home)]
        with (home / "agent.log").open("ab") as log:
            self._processes[site_id] = subprocess.Popen(
                [*command, "--socket", str(socket)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_S
        while not is_healthy(socket):
            if self._processes[site_id].poll() is not None or time.monotonic() > end:
                raise RunError("an agent does not start", where=str(home / "agent.log"))
            time.sleep(0.2)
        self.agents[site_id] = SocketAgent(socket)

    def process_of(self, site_id: str) -> tuple[Path, int]:
        """Return the socket of a hospital's agent and the number of its process."""
        return self.homes[site_id] / "s" / "a", self._processes[site_id].pid

    def stop(self, site_id: str) -> None:
        """End a hospital's agent."""
        self.agents.pop(site_id, None)
        process = self._processes.pop(site_id, None)
        if process is not None:
            process.terminate()
            process.wait(60)

    def run(self, study: Study, wrap: Wrap = lambda _, agent: agent) -> RunResult:
        """Run a study in a new run, by the coordinator's own code.

        Raises:
            RunError: The run failed.
        """
        self._runs += 1
        agents = {site_id: wrap(site_id, agent) for site_id, agent in self.agents.items()}
        folder = self.root / f"run-{self._runs}"
        return run_in_process(study, agents, folder, output=Output(json_mode=True))


@contextmanager
def agents_on_trial(root: Path, **size: Any) -> Iterator[AgentsOnTrial]:
    """Start a hospital's agent each, and end them when the block ends; see `AgentsOnTrial`."""
    trial = AgentsOnTrial(root, **size)
    try:
        for site_id in trial.homes:
            trial.start(site_id)
        yield trial
    finally:
        for site_id in trial.homes:
            trial.stop(site_id)
