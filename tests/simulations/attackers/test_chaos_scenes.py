"""Every scene of the chaos benchmark, on one consortium of real processes."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from simulations.attackers.chaos_scenes import Stage
from simulations.benchmarks.deployment import chaos
from simulations.consortium.local_consortium import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def stage():
    """Paths of Unix sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="tb") as folder:
        made = Stage.build(Path(folder) / "c")
        with running(made.consortium):
            yield made


@pytest.mark.parametrize("scene", chaos.FULL.scenes)
def test_scene(scene, stage):
    checks = list(chaos.SCENES[scene](stage, replace(chaos.FULL, faults=30)))
    assert checks
    assert [str(check) for check in checks if not check.holds] == []
