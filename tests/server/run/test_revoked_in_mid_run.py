"""A hospital that is revoked while a study runs: the others go on, know it, and it is told."""

import json
import tempfile
import time
from pathlib import Path

import pytest
from roster_lab import agent_of, connection_of, copy_lab, make_lab, study_of
from tiny_consortium import InMemory, tiny_datasets
from typer.testing import CliRunner

from client.site.site_folder import load_policy
from common.commands.cli_output import Output
from common.errors import ErrorCode, RunError
from common.trust.audit_log import read_audit
from server.consortium.provision_roster import revoke
from server.operate.cli import app
from server.operate.run_control import follow_run, request_run
from server.operate.run_folder import find_run, new_run
from server.report.content import make_content
from server.report.hospital_rows import hospital_rows
from server.report.page import report_html
from server.run.finished_run import read_finished_run
from server.run.rounds import run_study
from simulations.consortium.local_consortium import (
    local_study,
    make_consortium,
    running,
)
from simulations.engines.consortium_run import local_link
from simulations.synthetic.spec import demo_spec

QUIET = Output(json_mode=True)
SITES = tuple(f"site-{letter}" for letter in "abcde")
GONE, OTHERS = "site-c", ("site-a", "site-b", "site-d", "site-e")
MODES = {
    "none": {"privacy": {"mode": "none", "evaluation": {"release": "internal"}}},
    "distributed": {
        "privacy": {"mode": "distributed", "epsilon": 8.0, "evaluation": {"release": "dp"}},
        "training": {"nominal_patients": 150},
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A consortium of five joined hospitals, made once."""
    folder = tmp_path_factory.mktemp("made")
    make_lab(folder, SITES)
    return folder


@pytest.fixture
def lab(made, tmp_path):
    return copy_lab(made, tmp_path, SITES)


class Revoking:
    """A link that has a hospital revoked before a call; its node is put out with it."""

    def __init__(self, link, lab, method, number):
        self._link, self._lab, self._when = link, lab, (method, number)
        self.asked_after = []
        self.revoked = False

    def site_ids(self):
        found = self._link.site_ids()
        return tuple(s for s in found if not (self.revoked and s == GONE))

    def exchange(self, method, requests, **options):
        call = (method, getattr(next(iter(requests.values()), None), "round", None))
        if call == self._when and not self.revoked:
            revoke(self._lab, GONE, "left the study")
            self.revoked = True
        elif self.revoked:
            self.asked_after.append((method, GONE in requests))
        reached = {s: r for s, r in requests.items() if not (self.revoked and s == GONE)}
        return self._link.exchange(method, reached, **options)


def events(lab, event):
    return [r for r in read_audit(lab.audit) if r.event == event]


def known(lab, site):
    return connection_of(lab, site).roster().version


@pytest.mark.parametrize("mode", MODES)
def test_the_others_go_on_from_the_next_round(mode, lab):
    study = study_of(lab, **MODES[mode])
    run, data = new_run(lab, study), tiny_datasets(study)
    agents = {s: agent_of(lab, study, s, InMemory(data[s])) for s in SITES}
    link = Revoking(local_link(study, agents), lab, "train", 2)
    result = run_study(study, link, run.path, output=QUIET)
    version = lab.roster().version
    assert [h.sites for h in result.history] == [list(SITES), *[list(OTHERS)] * 3]
    assert result.history[1].dropped == {GONE: "silent"}
    assert not [record.dropped for record in result.history[2:] if record.dropped]
    assert link.asked_after[0][0] in ("unmask", "handshake")
    later = link.asked_after[[method for method, _ in link.asked_after].index("handshake") :]
    assert not any(asked for _, asked in later)
    assert {site: known(lab, site) for site in SITES} == {
        **dict.fromkeys(OTHERS, version),
        GONE: version - 1,
    }
    told = events(lab, "site_revoked")
    assert [(r.site, r.code, r.round, r.facts["roster_version"]) for r in told] == [
        (GONE, ErrorCode.REVOKED, 2, version)
    ]
    status = CliRunner().invoke(app, ["status", str(lab.root), "--json"])
    assert json.loads(status.stdout)["run"]["sites"][GONE]["state"] == "it was revoked (TB523)"
    finished = read_finished_run(run.path)
    row = next(r for r in hospital_rows(make_content(finished)) if r.site_id == GONE)
    assert (row.took_part, row.absence, row.rounds) == (True, ErrorCode.REVOKED, 1)
    assert "left the study: TB523" in report_html(make_content(finished))
    assert (finished.privacy.epsilon_spent[GONE] > 0) == (mode != "none")


def test_a_revocation_before_the_last_evaluation_counts(lab):
    study = study_of(lab, **MODES["none"])
    run, data = new_run(lab, study), tiny_datasets(study)
    agents = {s: agent_of(lab, study, s, InMemory(data[s])) for s in SITES}
    link = Revoking(local_link(study, agents), lab, "train", study.training.rounds)
    result = run_study(study, link, run.path, output=QUIET)
    assert sorted(result.evaluations["federated"].tables) == list(OTHERS)
    assert not any(asked for method, asked in link.asked_after if method == "evaluate")


def test_a_resumed_run_goes_on_without_it_and_a_new_one_is_refused_at_once(lab):
    study = study_of(lab, **MODES["none"])
    run, data = new_run(lab, study), tiny_datasets(study)

    def start(link):
        return run_study(study, link, run.path, output=QUIET)

    class Ending(Revoking):
        def exchange(self, method, requests, **options):
            if self.revoked:
                raise RunError("the power is gone")
            return super().exchange(method, requests, **options)

    agents = {s: agent_of(lab, study, s, InMemory(data[s])) for s in SITES}
    with pytest.raises(RunError):
        start(Ending(local_link(study, agents), lab, "train", 2))
    again = {s: agent_of(lab, study, s, InMemory(data[s])) for s in OTHERS}
    result = start(local_link(study, again))
    assert result.history[-1].sites == list(OTHERS)
    assert find_run(lab, None).state().sites[GONE].refusal_code == ErrorCode.REVOKED
    with pytest.raises(RunError) as caught:
        new_run(lab, study)
    assert caught.value.code == ErrorCode.ROSTER
    assert caught.value.why == f"{GONE} is revoked"


def test_too_few_hospitals_left_for_a_secure_sum_end_the_run_with_the_reason(lab):
    study = study_of(lab, **MODES["distributed"])
    few = study.model_copy(update={"sites": study.sites[:3]})
    run, data = new_run(lab, few), tiny_datasets(few)
    agents = {s: agent_of(lab, few, s, InMemory(data[s])) for s in SITES[:3]}
    link = Revoking(local_link(few, agents), lab, "train", 2)
    with pytest.raises(RunError) as caught:
        run_study(few, link, run.path, output=QUIET)
    assert caught.value.code == ErrorCode.QUORUM
    assert [r.site for r in events(lab, "site_revoked")] == [GONE]


def alter(lab):
    told = json.loads(lab.roster_file.read_text())
    told["roster"]["members"] = told["roster"]["members"][1:]
    lab.roster_file.write_text(json.dumps(told))


def bring_back(older):
    return lambda lab: lab.roster_file.write_bytes(older)


@pytest.mark.parametrize("kind", ["altered", "older", "missing"])
def test_who_writes_the_coordinators_roster_cannot_end_a_study(kind, lab):
    older = lab.roster_file.read_bytes()
    revoke(lab, "site-e", "never took part")
    study = study_of(lab, **MODES["none"])
    study = study.model_copy(update={"sites": study.sites[:4]})
    run, data = new_run(lab, study), tiny_datasets(study)
    agents = {s: agent_of(lab, study, s, InMemory(data[s])) for s in SITES[:4]}
    harm = {
        "altered": alter,
        "older": bring_back(older),
        "missing": lambda lab: lab.roster_file.unlink(),
    }[kind]

    class Harming:
        def __init__(self, link):
            self._link = link
            self.site_ids = link.site_ids

        def exchange(self, method, requests, **options):
            if method == "train" and next(iter(requests.values())).round == 2:
                harm(lab)
            return self._link.exchange(method, requests, **options)

    result = run_study(study, Harming(local_link(study, agents)), run.path, output=QUIET)
    assert [h.sites for h in result.history] == [list(SITES[:4])] * study.training.rounds
    refused = events(lab, "roster_refused")
    assert [(r.code, r.round) for r in refused] == [(ErrorCode.ROSTER, 2)]  # said once


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
def test_revoked_in_mid_run_with_real_processes_and_no_new_kit(mode):
    with tempfile.TemporaryDirectory(prefix="tb") as name:
        spec = demo_spec(sites=5, patients=30)
        consortium = make_consortium(Path(name) / "c", spec)
        quorum = {"min_sites": 3, "round_timeout_s": 60.0}
        study = local_study(consortium, spec, mode=mode, rounds=25, quorum=quorum)
        run = consortium.agree(study)
        gone, *others = sorted(consortium.sites)
        kits = {s: kit_of(home) for s, home in consortium.sites.items()}
        with running(consortium):
            request_run(consortium.folder, run)
            wait_for_round(run, 3)
            revoke(consortium.folder, gone, "left the study")
            follow_run(run, QUIET)
            status = consortium.command("server", "status", str(consortium.folder.root))
        version = consortium.folder.roster().version
        history = read_finished_run(run.path).history
        assert "it was revoked (TB523)" in status
        assert len(history) == 25
        assert gone in history[2].sites
        assert set(history[-1].sites) == set(others)
        assert {s: kit_of(home) for s, home in consortium.sites.items()} == kits
        for site in others:
            told = consortium.command(
                "site", "roster", "--site", str(consortium.sites[site]), "--json"
            )
            assert json.loads(told)["version"] == version
            log = read_audit(load_policy(consortium.sites[site]).state.parent / "audit.jsonl")
            assert [r.event for r in log].count("kit_installed") == 0
            assert [r.facts["roster_version"] for r in log if r.event == "roster_taken"][
                -1
            ] == version
        log = read_audit(consortium.folder.audit)
        assert [r.site for r in log if r.event == "site_revoked"] == [gone]
        assert [r.site for r in log if r.event == "kit_written"] == sorted(consortium.sites)


def kit_of(home):
    """What an installed kit pins, as bytes."""
    return (home / "connection" / "connection.yaml").read_bytes()


def wait_for_round(run, number):
    deadline = time.monotonic() + 200
    while run.state() is None or run.state().round < number:
        assert time.monotonic() < deadline
        time.sleep(0.1)
