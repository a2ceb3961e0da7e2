"""Run a whole federation on this machine: real server, real agents, real Flower apps.

Only the transport differs from deployment: an in-process Grid, or Flower's Ray simulation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from flwr.app import Context

from client.agent.dispatch import answer
from client.flower.flower_app import Call, make_client_app
from common.commands.cli_output import Output
from common.errors import ConfigError
from common.protocol.protocol import AgentApi
from common.study.study import Study
from server.flower.grid_link import GridLink, roster_keys
from server.run.rounds import RunResult, run_study
from simulations.engines.local_grid import LocalGrid
from simulations.engines.ray_engine import run_on_ray

Engine = Literal["local", "ray"]


def run_in_process(
    study: Study,
    agents: Mapping[str, AgentApi],
    run_dir: Path,
    *,
    output: Output,
    engine: Engine = "local",
) -> RunResult:
    """Run, or continue, a study over simulated sites.

    Args:
        study: The frozen study.
        agents: Site -> its agent. With engine `ray` agents must survive pickling, and keep on
            disk what they must not forget (`SiteAgent` does).
        run_dir: Folder of the run; continue an interrupted run by naming it again.
        output: Where progress is shown.
        engine: `local` calls the agents in this process, one after the other; `ray` uses
            Flower's simulation engine over worker processes.

    Raises:
        ConfigError: The engine is unknown.
        RunError: The run failed; its state on disk says why.
    """
    if engine == "ray":
        return run_on_ray(study, agents, run_dir, output=output)
    if engine != "local":
        raise ConfigError(f"unknown engine '{engine}'", cure="one of: local, ray")
    return run_study(study, local_link(study, agents), run_dir, output=output)


def local_link(study: Study, agents: Mapping[str, AgentApi]) -> GridLink:
    """Return a link over the in-process Grid, one node an agent."""
    grid = LocalGrid(make_client_app(direct_call(agents)), len(agents))
    return GridLink(grid, roster_keys(study), poll_s=0.001)


def direct_call(agents: Mapping[str, AgentApi]) -> Call:
    """Return the relay's call when the agents live in this process."""
    by_partition = [agents[site_id] for site_id in sorted(agents)]

    def call(context: Context, method: str, header: str, payload: bytes) -> tuple[str, bytes]:
        agent = by_partition[int(context.node_config["partition-id"])]
        return answer(agent, method, header, payload)

    return call
