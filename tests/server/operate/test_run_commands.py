"""The coordinator's running commands as a user meets them when something is missing."""

import json
from types import SimpleNamespace

import pytest
from joined_consortium import join, make_consortium, make_hospital
from tiny_consortium import tiny_study
from typer.testing import CliRunner

from client.site.enrol_request import public_keys
from common.commands.cli_output import Output
from common.errors import ConfigError, ErrorCode, RunError
from server.operate.cli import app
from server.operate.run_control import follow_run
from server.operate.run_folder import RunFolder, new_run
from server.operate.server_status import run_progress
from server.session.run_state import RunState, SiteState
from server.session.session import STOP_FILE, open_session

SITES = ("site-a", "site-b", "site-c")
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A consortium of three hospitals, and the study with their keys."""
    folder = tmp_path_factory.mktemp("lab")
    consortium = make_consortium(folder)
    policies = {site: make_hospital(folder, site) for site in SITES}
    for policy in policies.values():
        join(consortium, policy, folder)
    roster = [{"site_id": s, "public_key": public_keys(p).identity} for s, p in policies.items()]
    study = tiny_study(sites=roster)
    (folder / "study.yaml").write_text(study.model_dump_json())
    return consortium, study, folder


def call(*arguments):
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def state(run, phase, number=0, reason=None):
    RunState(
        run_id="r",
        study_digest="a" * 64,
        code_digest="b" * 64,
        phase=phase,
        round=number,
        rounds=4,
        reason=reason,
        sites={"site-a": SiteState(enrolled=True, online=False), "site-b": SiteState()},
    ).save(run.path)


def test_no_command_works_without_a_consortium(tmp_path):
    for command in ("up", "stop", "resume"):
        result = call(command, tmp_path)
        assert isinstance(result.exception, ConfigError)
    assert "no run and no consortium" in call("status", tmp_path).exception.what


def test_run_needs_the_server(lab):
    consortium, _, folder = lab
    error = call("run", consortium.root, folder / "study.yaml").exception
    assert isinstance(error, ConfigError)
    assert "not up" in error.what
    assert "tumorboard server up" in error.cure


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"site_id": "site-z"}, "not admitted"),
        ({"public_key": "0" * 64}, "another key"),
        ({"public_key": None}, "another key"),
    ],
)
def test_study_with_a_site_that_is_not_on_the_roster_is_refused(lab, change, word):
    consortium, study, _ = lab
    first = study.sites[0].model_copy(update=change)
    wrong = study.model_copy(update={"sites": [first, *study.sites[1:]]})
    with pytest.raises(RunError, match="roster") as caught:
        new_run(consortium, wrong)
    assert word in caught.value.why
    assert caught.value.code == ErrorCode.ROSTER


def test_status_of_server_and_run(lab):
    consortium, study, _ = lab
    made = new_run(consortium, study)
    told = json.loads(call("status", consortium.root, "--json").stdout)
    assert told["server"]["health"] == "down"
    assert told["run"] is None
    state(made, "round", 2)
    told = json.loads(call("status", consortium.root, "--json").stdout)
    assert (told["run"]["phase"], told["run"]["round"]) == ("round", 2)
    assert told["run"]["sites"]["site-a"]["state"] == "offline"
    assert told["run"]["sites"]["site-b"]["state"] == "it did not answer"
    assert "round 2 of 4" in call("status", made.path).stdout
    assert "round 2 of 4" in call("status", consortium.root, "--run", made.name).stdout
    assert "there is no run 'x'" in call("status", consortium.root, "--run", "x").exception.what


def test_status_names_what_kept_a_site_out_and_its_cure(lab):
    consortium, study, _ = lab
    made = new_run(consortium, study)
    state(made, "round", 2)
    records = [{"dropped": {}}, {"dropped": {"site-a": "TB910", "site-c": "silent"}}]
    folder = made.path / "checkpoints"
    folder.mkdir(exist_ok=True)
    (folder / "round_000002.json").write_text(json.dumps({"history": records}))
    told = json.loads(call("status", consortium.root, "--json").stdout)["run"]["sites"]
    assert told["site-a"]["dropped"] == "TB910"
    assert "free space" in told["site-a"]["cure"]
    shown = call("status", consortium.root).stdout
    assert "site-a: [TB910] A disk is full" in shown
    assert "fix: `tumorboard site doctor`" in shown
    assert shown.count("[TB") == 1
    (folder / "round_000002.json").unlink()


@pytest.mark.parametrize("options", [["--json"], []])
def test_nothing_that_runs_is_not_said_to_have_ended(tmp_path, options):
    result = call("stop", make_consortium(tmp_path).root, "--down", *options)
    assert result.exit_code == 0
    if options:
        assert json.loads(result.stdout) == {"run": None, "down": True, "was_running": False}
    else:
        assert result.stdout == "The SuperLink was not running.\n"


def test_stop_of_a_run_nobody_holds_is_written_down(lab):
    consortium, study, _ = lab
    made = new_run(consortium, study)
    made.request_start()
    state(made, "round", 2)
    assert call("stop", consortium.root).exit_code == 0
    assert made.state().phase == "stopped"
    assert made.state().reason.startswith(str(ErrorCode.STOPPED))
    assert not made.is_requested
    assert (made.path / STOP_FILE).exists()
    made.request_start()
    assert not (made.path / STOP_FILE).exists()
    made.cancel_request()


@pytest.mark.parametrize(
    ("phase", "reason", "code"),
    [
        ("failed", "TB601: too few sites", ErrorCode.QUORUM),
        ("stopped", "TB602: the coordinator stopped the run", ErrorCode.STOPPED),
        ("failed", "something else", ErrorCode.RUN),
    ],
)
def test_follower_tells_the_run_s_own_reason(lab, phase, reason, code):
    consortium, study, _ = lab
    made = new_run(consortium, study)
    made.cancel_request()
    state(made, phase, 3, reason)
    with pytest.raises(RunError) as caught:
        follow_run(made, Output(json_mode=True))
    assert caught.value.code == code


def test_follower_does_not_wait_for_ever_for_a_server_that_is_down(lab, monkeypatch):
    monkeypatch.setattr("server.operate.run_control.SERVER_GONE_S", 0.5)
    consortium, study, _ = lab
    made = new_run(consortium, study)
    made.request_start()
    state(made, "round", 1)
    with pytest.raises(RunError, match="server has ended"):
        follow_run(made, Output(json_mode=True))
    made.cancel_request()


def test_time_left_is_that_of_the_last_rounds(tmp_path):
    made = RunFolder(tmp_path)
    assert run_progress(tmp_path) is None
    state(made, "round", 2)
    assert run_progress(tmp_path).eta_s is None
    (tmp_path / "checkpoints").mkdir()
    history = [{"seconds": 100.0}, {"seconds": 4.0}]
    (tmp_path / "checkpoints" / "round_000002.json").write_text(json.dumps({"history": history}))
    progress = run_progress(tmp_path)
    assert progress.seconds_per_round == 52.0
    assert progress.eta_s == 104.0
    state(made, "done", 2)
    assert run_progress(tmp_path).eta_s is None


def test_a_run_of_other_code_says_so_at_once(lab):
    """The follower reads the state alone; without the reason there it would wait for minutes."""
    consortium, study, _ = lab
    run = new_run(consortium, study)
    RunState(
        run_id="r", study_digest=study.digest(), code_digest="b" * 64, phase="round", rounds=4
    ).save(run.path)
    with (
        pytest.raises(RunError, match="other code"),
        open_session(study, SimpleNamespace(), run.path, Output()),
    ):
        pass
    assert run.state().phase == "failed"
    with pytest.raises(RunError) as caught:
        follow_run(run, Output(json_mode=True))
    assert caught.value.code == ErrorCode.CODE_DIGEST
    assert "move this folder away" in caught.value.cure


def test_a_mistyped_run_neither_stops_nor_takes_the_server_down(lab, monkeypatch):
    monkeypatch.setattr("server.operate.end_supervised", lambda _: pytest.fail("taken down"))
    result = call("stop", lab[0].root, "--run", "no-such-run", "--down")
    assert "there is no run 'no-such-run'" in result.exception.what


def test_no_page_is_served_about_a_folder_that_is_not_there(tmp_path):
    result = call("page", tmp_path / "mistyped", "--port", "0")
    assert isinstance(result.exception, ConfigError)


def test_resume_of_a_finished_run_says_that_it_is_done(lab, monkeypatch):
    monkeypatch.setattr("server.operate.run_control.running_server", lambda _: True)
    consortium, study, _ = lab
    made = new_run(consortium, study)
    made.cancel_request()
    state(made, "done", 4)
    assert "is done" in call("resume", consortium.root, "--no-follow").stdout
    state(made, "stopped", 2)
    assert "is under way" in call("resume", consortium.root, "--no-follow").stdout
    made.cancel_request()
