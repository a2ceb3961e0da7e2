"""`site join`, `status`, `leave` as a hospital meets them when something is missing."""

import json

import pytest
from joined_consortium import join, make_consortium, make_hospital
from typer.testing import CliRunner

from client.operate.cli import app
from client.operate.site_processes import SitePaths, list_site_processes
from client.site.identity import node_key_path
from common.errors import ConfigError
from common.storage.file_lock import held_alone

RUNNER = CliRunner()


@pytest.fixture
def hospital(tmp_path):
    """A hospital with keys, not yet connected."""
    return make_hospital(tmp_path, "site-a"), tmp_path


def test_join_needs_a_kit(hospital):
    _, folder = hospital
    error = RUNNER.invoke(app, ["join", "--site", str(folder / "site-a")]).exception
    assert isinstance(error, ConfigError)
    assert "not connected" in error.what


def test_join_needs_the_node_key(hospital):
    policy, folder = hospital
    join(make_consortium(folder), policy, folder)
    node_key_path(policy.identity_key).unlink()
    error = RUNNER.invoke(app, ["join", "--site", str(folder / "site-a")]).exception
    assert isinstance(error, ConfigError)
    assert "node key" in error.what


@pytest.mark.parametrize("how", [["--background"], []])
def test_too_long_a_socket_is_refused_before_anything_starts(hospital, how):
    policy, folder = hospital
    join(make_consortium(folder), policy, folder)
    site = str(folder / "site-a")
    line = ["join", "--site", site, "--socket", str(folder / ("x" * 110)), *how]
    with pytest.raises(ConfigError) as caught:
        RUNNER.invoke(app, line, catch_exceptions=False)
    assert "a Unix socket's may have 107" in caught.value.why
    assert str(caught.value).count("[TB") == 1
    paths = SitePaths.of(folder / "site-a")
    assert not paths.log.exists()
    assert not paths.node.exists()


def test_a_second_join_leaves_the_first_one_s_secret(hospital):
    """Else a relay that is restarted would have another than its SuperNode."""
    policy, folder = hospital
    join(make_consortium(folder), policy, folder)
    list_site_processes(folder / "site-a")
    paths = SitePaths.of(folder / "site-a")
    secret = (paths.node / "relay.secret").read_bytes()
    paths.status.write_text('{"pid": 1, "children": {}}')
    with (
        held_alone(paths.status.with_name("processes.json.lock"), ValueError()),
        pytest.raises(ConfigError, match="running already"),
    ):
        list_site_processes(folder / "site-a")
    assert (paths.node / "relay.secret").read_bytes() == secret


def test_status_and_leave_of_a_hospital_that_takes_no_part(hospital):
    site = str(hospital[1] / "site-a")
    result = RUNNER.invoke(app, ["status", "--site", site, "--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["joined"], told["state"], told["processes"]) == (False, "away", [])
    result = RUNNER.invoke(app, ["leave", "--site", site, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"was_running": False}


def test_no_secret_stands_in_a_command_line(hospital):
    policy, folder = hospital
    join(make_consortium(folder), policy, folder)
    children, facts = list_site_processes(folder / "site-a")
    assert [child.name for child in children] == ["agent", "supernode", "relay"]
    secret = SitePaths.of(folder / "site-a").node / "relay.secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    words = " ".join(str(word) for child in children for word in child.command)
    assert secret.read_bytes().hex() not in words
    supernode = children[1].command
    assert supernode[supernode.index("--isolation") + 1] == "process"
    assert supernode[supernode.index("--host") + 1] == "127.0.0.1"
    assert str(facts["socket"]).endswith("private/agent.sock")
    again = secret.read_bytes()
    list_site_processes(folder / "site-a", agent=False)
    assert secret.read_bytes() != again
