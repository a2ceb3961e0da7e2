"""A whole consortium as real processes, with TLS, node keys and sockets."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from client.agent.site_agent import SiteAgent
from client.data.split import load_or_create_split_key
from client.site.site_folder import load_policy
from common.commands.cli_output import Output
from server.flower.superlink import running_server
from server.operate.run_control import follow_run, request_run
from simulations.consortium.consortium_demo import check_agreement, run_local_consortium
from simulations.consortium.local_consortium import (
    local_study,
    make_consortium,
    running,
)
from simulations.engines.consortium_run import run_in_process
from simulations.synthetic.spec import demo_spec

QUIET = Output(json_mode=True)
ALL = {"min_sites": 3, "round_timeout_s": 120.0}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def root():
    """Paths of Unix sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="tb") as folder:
        yield Path(folder)


def test_study_in_mode_distributed_to_the_report_with_logs_that_agree(root):
    done = run_local_consortium(root, patients=40, rounds=4, output=QUIET)
    assert done.page.is_file()
    assert len(done.agreements) == 3 + 3 * 3
    assert all(agreement.holds for agreement in done.agreements)


def test_without_privacy_the_model_is_that_of_the_run_in_process_even_after_a_kill(root):
    spec = demo_spec(sites=3, patients=40)
    consortium = make_consortium(root / "a", spec)
    study = local_study(consortium, spec, mode="none", rounds=5, quorum=ALL)
    run = consortium.agree(study)
    for home in consortium.sites.values():
        load_or_create_split_key(load_policy(home).split_key_file)
    shutil.copytree(root / "a" / "sites", root / "b")  # before anything was spent
    with running(consortium):
        request_run(consortium.folder, run)
        while run.state() is None or run.state().round < 2:
            assert running_server(consortium.folder)
        os.kill(running_server(consortium.folder).children["superlink"]["pid"], signal.SIGKILL)
        follow_run(run, QUIET)
        assert all(agreement.holds for agreement in check_agreement(consortium, run))
    deployed = (run.path / "model.safetensors").read_bytes()
    agents = {site: SiteAgent(load_policy(root / "b" / site)) for site in consortium.sites}
    here = run_in_process(study, agents, root / "run", output=QUIET)
    assert deployed == (here.run_dir / "model.safetensors").read_bytes()
