"""Units, images and scripts that operators copy: linted, pinned, hardened, and installed."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from common.process.deploy_files import deploy_file

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy").glob("*/systemd/*.service"))
COMPOSE = sorted((ROOT / "deploy").glob("*/compose.yaml"))
IMAGE = ROOT / "deploy" / "images" / "Dockerfile"


def tool(*command):
    program = shutil.which(command[0], path=f"{Path(sys.executable).parent}:/usr/bin:/bin")
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        [program, *map(str, command[1:])], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_image_is_linted():
    assert tool("hadolint", IMAGE) == (0, "")


def test_scripts_are_linted():
    assert tool("shellcheck", *(ROOT / "deploy").rglob("*.sh")) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_accepts_the_units(unit, tmp_path):
    """Verified with the paths of this machine in place of those of an installation."""
    for other in UNITS:
        text = other.read_text().replace("/opt/tumorboard/bin", str(Path(sys.executable).parent))
        (tmp_path / other.name).write_text(text)
    status, said = tool("systemd-analyze", "verify", "--man=no", tmp_path / unit.name)
    assert [line for line in said.splitlines() if unit.name in line] == []
    assert status == 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_are_hardened_and_never_root(unit):
    lines = unit.read_text().splitlines()
    for setting in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="):
        assert setting in lines
    user = next(line for line in lines if line.startswith("User="))
    assert user != "User=root"


def test_agent_and_what_faces_the_network_are_different_users():
    users = {
        unit.stem: next(line for line in unit.read_text().splitlines() if line.startswith("User="))
        for unit in UNITS
    }
    assert users["tumorboard-agent"] not in (
        users["tumorboard-supernode"],
        users["tumorboard-relay"],
    )
    agent = (ROOT / "deploy/site/systemd/tumorboard-agent.service").read_text()
    assert "PrivateNetwork=yes" in agent
    for name in ("supernode", "relay"):
        text = (ROOT / f"deploy/site/systemd/tumorboard-{name}.service").read_text()
        assert "InaccessiblePaths=/srv/tumorboard/site/private" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_options_in_the_units_exist(unit):
    """Every command line is one that the program itself understands."""
    line = next(x for x in unit.read_text().splitlines() if x.startswith("ExecStart="))
    words = line.removeprefix("ExecStart=").split()
    if words[1] == "-m":
        entry = words[1:3]
    else:
        entry = ["-c", "from common.commands.cli import main; main()", *words[1:3]]
    done = subprocess.run(
        [sys.executable, *entry, "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "PYTHONPATH": str(ROOT), "HOME": "/tmp"},
    )
    assert done.returncode == 0, done.stderr
    for option in re.findall(r"(?<= )--[a-z-]+", line):
        assert option in done.stdout


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_containers_are_hardened(path):
    services = yaml.safe_load(path.read_text())["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service["user"].startswith("0")
        assert ":latest" not in service["image"]
        assert ":" in service["image"]
    if "agent" in services:
        assert services["agent"]["network_mode"] == "none"
        assert services["agent"]["user"] != services["node"]["user"]
        seen = [volume for volume in services["node"]["volumes"] if not volume.startswith("socket")]
        assert all(volume.endswith(":ro") for volume in seen)


def test_versions_of_the_images_are_pinned_and_are_those_required():
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    version = {re.sub("[-_.]+", "-", pin.name).lower(): str(pin.specifier)[2:] for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    for name in ("pathology", "radiology", "text", "explain"):
        wanted += extras[name]
    for text in wanted:
        requirement = Requirement(text)
        pinned = version[re.sub("[-_.]+", "-", requirement.name).lower()]
        assert requirement.specifier.contains(pinned), text


def test_every_file_for_operators_is_in_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["data-files"]
    shipped = {
        found.relative_to(ROOT)
        for patterns in listed.values()
        for pattern in patterns
        for found in ROOT.glob(pattern)
    }
    for folder in ("flower_app", "proxy", "server", "site"):
        files = {p.relative_to(ROOT) for p in deploy_file(folder).rglob("*") if p.is_file()}
        assert files <= shipped
