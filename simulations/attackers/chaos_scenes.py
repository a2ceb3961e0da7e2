"""Scenes of the chaos benchmark: each plays one kind of trouble on a running consortium."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from client.agent.service import is_healthy
from client.agent.site_agent import SiteAgent
from client.data.split import load_or_create_split_key
from client.operate.site_processes import SitePaths
from client.site.enrol_connection import SiteConnection
from client.site.site_folder import load_policy
from common.commands.cli_output import Output
from common.privacy.plan import Mode
from common.process.supervisor import end_supervised, read_supervised
from common.study.site_policy import SitePolicy
from common.study.study import ModelSpec, Study
from server.flower.superlink import status_file
from server.operate.run_control import request_run
from server.operate.run_folder import RunFolder
from simulations.consortium.local_consortium import (
    LocalConsortium,
    consent,
    lead_to,
    local_study,
    make_consortium,
)
from simulations.deployed.bench_run import wait_until
from simulations.deployed.tcp_proxy import TcpProxy
from simulations.engines.consortium_run import run_in_process
from simulations.synthetic.spec import demo_spec

PATIENTS = 30
LIMIT_S = 400.0
QUIET = Output(json_mode=True)
FEATURES = ("radiomics", "clinical_table")


@dataclass
class Stage:
    """A consortium whose hospitals reach the SuperLink over lines that can be made bad.

    Attributes:
        root: Folder of everything.
        consortium: Coordinator and hospitals.
        lines: Site -> its line.
    """

    root: Path
    consortium: LocalConsortium
    lines: dict[str, TcpProxy]

    @classmethod
    def build(cls, root: Path, sites: int = 3) -> "Stage":
        """Provision a consortium and put a line before every hospital."""
        consortium = make_consortium(root, demo_spec(sites=sites, patients=PATIENTS))
        lines = {site_id: TcpProxy(consortium.port) for site_id in consortium.sites}
        for site_id, home in consortium.sites.items():
            load_or_create_split_key(load_policy(home).split_key_file)
            lead_to(SiteConnection.of_site(home), f"127.0.0.1:{lines[site_id].port}")
        shutil.copytree(root / "sites", root / "untouched")
        return cls(root, consortium, lines)

    def study(
        self, version: int, mode: Mode, rounds: int, *, quorum: int = 3, timeout_s: float = 120.0
    ) -> Study:
        """Return a small study; every version is another study."""
        study = local_study(
            self.consortium,
            demo_spec(sites=len(self.lines), patients=PATIENTS),
            mode=mode,
            rounds=rounds,
            features=FEATURES,
            model=ModelSpec(name="linear", options={"pooled_norm": 3.0}),
            quorum={"min_sites": quorum, "round_timeout_s": timeout_s},
        )
        return study.model_copy(update={"version": version})

    def begin(self, study: Study) -> RunFolder:
        """Have all consent to a study and the server start it."""
        run = self.consortium.agree(study)
        request_run(self.consortium.folder, run)
        return run

    def faultless_model(self, study: Study) -> bytes:
        """Return the model that a run without any fault gives, computed in this process."""
        for site_id in self.consortium.sites:
            consent(self.root / "untouched" / site_id, study)
        agents = {
            site_id: SiteAgent(load_policy(self.root / "untouched" / site_id))
            for site_id in self.consortium.sites
        }
        where = self.root / f"faultless-{study.version}"
        result = run_in_process(study, agents, where, output=QUIET)
        return (result.run_dir / "model.safetensors").read_bytes()


def wait_for_round(run: RunFolder, number: int) -> bool:
    """Wait until a round is committed or the run has ended; return whether it is."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        state = run.state()
        if state is not None and state.round >= number:
            return True
        if not run.is_requested:
            return False
        time.sleep(0.2)
    return False


def wait_for_end(run: RunFolder) -> str:
    """Wait for the end of a run and return its phase."""
    deadline = time.monotonic() + LIMIT_S
    while run.is_requested and time.monotonic() < deadline:
        time.sleep(0.3)
    state = run.state()
    return state.phase if state is not None else "never started"


def superlink_away(stage: Stage, seconds: float) -> None:
    """Take the coordinator's processes down for some seconds, then up again."""
    end_supervised(status_file(stage.consortium.folder))
    time.sleep(seconds)
    stage.consortium.up()


@contextmanager
def full_disk(stage: Stage, site_id: str) -> Iterator[None]:
    """Let no file of a hospital's agent grow while the block runs."""
    running = read_supervised(SitePaths.of(stage.consortium.sites[site_id]).status)
    agent = psutil.Process(int(str(running.children["agent"]["pid"])) if running else 0)
    limits = agent.rlimit(psutil.RLIMIT_FSIZE)
    agent.rlimit(psutil.RLIMIT_FSIZE, (1, limits[1]))
    try:
        yield
    finally:
        with suppress(psutil.Error):
            agent.rlimit(psutil.RLIMIT_FSIZE, limits)


def restart_with_older_ledger(stage: Stage, site_id: str, older: Path) -> None:
    """Restart a hospital with a copy of its ledger from before."""
    home = stage.consortium.sites[site_id]
    stage.consortium.leave(site_id)
    for path in _ledger_files(load_policy(home)):
        shutil.copy(older / path.name, path)
    stage.consortium.join(site_id)


def keep_ledger(stage: Stage, site_id: str) -> Path:
    """Keep a copy of a hospital's ledger as it is; return its folder."""
    copy_folder = stage.root / f"kept-{site_id}"
    copy_folder.mkdir()
    for path in _ledger_files(load_policy(stage.consortium.sites[site_id])):
        shutil.copy(path, copy_folder / path.name)
    return copy_folder


def _ledger_files(policy: SitePolicy) -> list[Path]:
    return [policy.ledger, policy.ledger.with_name(f"{policy.ledger.name}.head")]


@contextmanager
def hostile_hospital(stage: Stage, site_id: str) -> Iterator[None]:
    """Run a hospital with an agent that tampers with every reply."""
    home = stage.consortium.sites[site_id]
    socket = SitePaths.of(home).private / "bad.sock"
    command = [sys.executable, "-m", "simulations.attackers.hostile_agent"]
    command += ["--site", str(home), "--socket", str(socket)]
    stage.consortium.leave(site_id)
    agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_healthy(socket, timeout_s=0.5), "the hostile agent")
        options = ("--no-agent", "--socket", str(socket), "--background")
        stage.consortium.command("site", "join", "--site", str(home), *options)
        yield
    finally:
        stage.consortium.leave(site_id)
        agent.terminate()
        agent.wait()
