"""Run the same apps under Flower's Ray simulation, with sites in worker processes."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from client.agent.dispatch import answer
from client.flower.flower_app import Call, make_client_app
from common.commands.cli_output import Output
from common.errors import RunError
from common.optional import require
from common.protocol.protocol import AgentApi
from common.study.study import Study
from server.flower.grid_link import GridLink, roster_keys
from server.run.rounds import RunResult, run_study

_AGENTS: dict[str, AgentApi] = {}
"""Agents this worker process has fetched; features are loaded once a worker, not a message."""


def run_on_ray(
    study: Study,
    agents: Mapping[str, AgentApi],
    run_dir: Path,
    *,
    output: Output,
) -> RunResult:
    """Run, or continue, a study with sites in Ray workers.

    Args:
        study: The frozen study.
        agents: Site -> its agent; pickled once, so all lasting state must be on disk.
        run_dir: Folder of the run.
        output: Where progress is shown.

    Raises:
        ConfigError: Ray is not installed.
        RunError: The run failed.
    """
    ray = require("ray", extra="simulate")
    from flwr.simulation import run_simulation

    results: list[RunResult] = []
    failures: list[Exception] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            link = GridLink(grid, roster_keys(study))
            results.append(run_study(study, link, run_dir, output=output))
        except Exception as error:  # raised again below, out of Flower's thread
            failures.append(error)

    config: Any = {"client_resources": {"num_cpus": 1.0, "num_gpus": 0.0}}
    _start(ray)
    try:
        with _quiet_flower():
            client_app = make_client_app(_call_in_worker(ray, agents))
            run_simulation(
                server_app, client_app, num_supernodes=len(agents), backend_config=config
            )
    finally:
        ray.shutdown()
    if failures:
        raise failures[0]
    if not results:
        raise RunError(
            "Flower's simulation ended without a result",
            where=str(run_dir),
            cure="run the same command again: it continues after the last committed round",
        )
    return results[0]


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Silence Flower's log and its deprecation warnings; errors still arrive as exceptions."""
    chatter = logging.getLogger("flwr")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        chatter.setLevel(level)


def _start(ray: Any) -> None:
    threads = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": threads},
    )


def _call_in_worker(ray: Any, agents: Mapping[str, AgentApi]) -> Call:
    references = [(site_id, ray.put(agents[site_id])) for site_id in sorted(agents)]

    def call(context: Context, method: str, header: str, payload: bytes) -> tuple[str, bytes]:
        site_id, reference = references[int(context.node_config["partition-id"])]
        if site_id not in _AGENTS:
            torch.set_num_threads(1)
            _AGENTS[site_id] = ray.get(reference)
        return answer(_AGENTS[site_id], method, header, payload)

    return call
