"""The wheel brings what operators need, without the clone beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOOK = """
import importlib.util
import simulations
from typer.testing import CliRunner
from simulations.operate import demo, demo_cli
from simulations.operate.cli import app
from simulations.consortium import consortium_demo
for left_out in ("attackers", "benchmarks", "deployed"):
    assert importlib.util.find_spec(f"simulations.{left_out}") is None, left_out
listed = CliRunner().invoke(app, ["list", "--json"])
assert listed.exit_code == 0 and "tcga_luad" in listed.output, listed.output
from common.process.deploy_files import deploy_file
from server.flower.bundle import bundle_digest
import tumorboard
from common.study.study import Study
assert tumorboard.Study is Study
assert tumorboard.__file__.startswith(sys.prefix)
assert deploy_file("site/systemd/tumorboard-agent.service").is_file()
assert deploy_file("proxy/tumorboard.conf").is_file()
print(deploy_file("flower_app"), bundle_digest())
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_installed_wheel_finds_its_files_and_builds_the_same_bundle(tmp_path):
    from server.flower.bundle import bundle_digest

    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    home = tmp_path / "home"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    pip, offline = [sys.executable, "-m", "pip"], ["--quiet", "--no-deps", "--no-index"]
    build = ["wheel", *offline, "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run([*pip, *build], check=True)
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run([*pip, "--python", home / "bin/python", "install", *offline, wheel], check=True)
    libraries = next(p for p in sys.path if p.endswith("site-packages"))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [home / "bin" / "python", "-c", f"import sys; sys.path.append({libraries!r})\n{LOOK}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder, digest = done.stdout.split()
    assert Path(folder) == home / "share" / "tumorboard" / "deploy" / "flower_app"
    assert digest == bundle_digest()
