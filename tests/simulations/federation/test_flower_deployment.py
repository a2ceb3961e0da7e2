"""The same study over Flower's deployment engine: SuperLink, SuperNodes and agents as processes."""

import json
import sys
import tempfile
from pathlib import Path

import pytest
from flower_processes import free_port, processes, wait_for

from client.agent.service import is_healthy
from common.cli_output import Output
from server.bundle import bundle_folder
from simulations.consortium_run import run_in_process
from simulations.identities import with_identities
from simulations.tiny_consortium import tiny_agents, tiny_study

AGENT = """
import sys
from pathlib import Path
from client.agent.service import serve
from common.study import Study
from simulations.tiny_consortium import tiny_agents
folder, site_id = Path(sys.argv[1]), sys.argv[2]
study = Study.from_yaml(folder / "study.yaml")
serve(tiny_agents(study, folder / "sites")[site_id], folder / site_id / "agent.sock")
"""
SITES = ("site-a", "site-b", "site-c")


def deploy(folder, start):
    port = free_port()
    (folder / "flwr").mkdir()
    (folder / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "lab"\n[superlink.lab]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n"
    )
    link = ("--insecure", "--host", "127.0.0.1", "--port", str(port), "--isolation", "subprocess")
    start("flower-superlink", *link, "--disable-runtime-dependency-installation")
    for site_id in SITES:
        start(sys.executable, "-c", AGENT, str(folder), site_id)
    for site_id in SITES:
        path = folder / site_id / "agent.sock"
        wait_for(lambda path=path: is_healthy(path, timeout_s=1.0), 120)
        own = ("--host", "127.0.0.1", "--port", str(free_port()), "--isolation", "subprocess")
        node = ("--node-config", f'agent-socket="{path}"')
        start("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", *node, *own)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["none", "distributed"])
def test_deployed_run_equals_the_one_in_process(mode):
    with tempfile.TemporaryDirectory(prefix="tb") as name:
        folder = Path(name)
        release = {"release": "internal" if mode == "none" else "dp"}
        study = tiny_study(
            training={"rounds": 2},
            privacy={"mode": mode, "epsilon": 8.0, "evaluation": release},
            quorum={"min_sites": 3, "round_timeout_s": 300},
        )
        study = with_identities(study, folder / "sites")
        for site_id in SITES:
            (folder / "sites" / site_id / "private" / "split.key").write_text("ef" * 32)
        (folder / "study.yaml").write_text(study.model_dump_json())
        state = folder / "run" / "run.json"
        with processes(folder) as start:
            deploy(folder, start)
            config = f'study="{folder}/study.yaml" run-dir="{folder}/run"'
            start("flwr", "run", bundle_folder(), "lab", "--run-config", config)
            wait_for(
                lambda: state.exists() and json.loads(state.read_text())["phase"] in ENDED, 600
            )
        assert json.loads(state.read_text())["phase"] == "done"
        if mode == "none":
            here = folder / "here"
            for site_id in SITES:
                (here / site_id / "private").mkdir(parents=True)
                (here / site_id / "private" / "split.key").write_text("ef" * 32)
            result = run_in_process(
                study, tiny_agents(study, here), here / "run", output=Output(json_mode=True)
            )
            deployed = (folder / "run" / "model.safetensors").read_bytes()
            assert deployed == (result.run_dir / "model.safetensors").read_bytes()


ENDED = ("done", "failed")
