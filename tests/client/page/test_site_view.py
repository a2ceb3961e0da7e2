"""What a hospital's page says agrees with its ledger, its consents and its agent."""

import json
import shutil
import threading
from functools import cache
from itertools import count
from pathlib import Path

import pytest
import torch
import yaml
from fastapi.testclient import TestClient
from tiny_consortium import tiny_agents, tiny_study

from client.agent.service import serving
from client.agent.site_agent import SiteAgent
from client.page.site_files import LedgerReader, read_site_files
from client.page.site_view import content_of, view_site
from client.site.site_folder import load_policy
from common.commands.cli_output import Output
from common.ledger.ledger import Ledger, LedgerBudgets, SpendEntry
from common.page.application import live_page
from common.study.study import Study
from simulations.engines.consortium_run import run_in_process

PRIVACY = {"mode": "local", "epsilon": 6.0, "evaluation": {"release": "dp"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Three hospitals after a real run of four rounds; site-a with its site.yaml."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("page")
    study = tiny_study(privacy=PRIVACY)
    agents = tiny_agents(study, folder)
    run_in_process(study, agents, folder / "run", output=Output(json_mode=True))
    keys = {
        "site_id": "site-a",
        "lifetime_epsilon": 9.0,
        "minimum_cohort": 5,
        "approvals": [
            {
                "study_digest": study.digest(),
                "epsilon_ceiling": 8.0,
                "evaluation_epsilon_ceiling": 6.0,
            }
        ],
    }
    (folder / "site-a" / "site.yaml").write_text(yaml.safe_dump(keys))
    return folder


@pytest.fixture
def site(whole, tmp_path) -> Path:
    shutil.copytree(whole / "site-a", tmp_path / "site-a")
    return tmp_path / "site-a"


def seen(site, **changes):
    return view_site(read_site_files(site, LedgerReader(), **changes))


@cache
def client_of(site) -> TestClient:
    reader = LedgerReader()
    app = live_page(
        lambda: content_of(view_site(read_site_files(site, reader))),
        package="client.page",
        template="site.html.j2",
    )
    return TestClient(app, base_url="http://localhost")


def page(site) -> tuple[str, dict]:
    client = client_of(site)
    return client.get("/").text, client.get("/status.json").json()


def test_budget_beside_every_ceiling(site):
    rows = [(row.scope, row.patients, row.ceiling, row.releases) for row in seen(site).budgets]
    assert rows == [
        ("this hospital, for life", "training", 9.0, 4),
        ("this hospital, for life", "held out", 20.0, 1),
        ("study tiny", "training", 8.0, 4),
        ("study tiny", "held out", 6.0, 1),
    ]
    spent = [row.spent for row in seen(site).budgets]
    assert spent == pytest.approx([6.0, 6.0, 6.0, 6.0], rel=2e-3)


def test_before_anything_is_spent_the_ceilings_for_life_are_there(tmp_path):
    (tmp_path / "site.yaml").write_text("site_id: hospital-a\n")
    view = seen(tmp_path)
    assert [(row.spent, row.ceiling) for row in view.budgets] == [(0.0, 10.0), (0.0, 20.0)]
    assert any("consented to no study" in problem.what for problem in view.problems)
    assert "Nothing yet." in page(tmp_path)[0]


def test_consents_and_their_runs(site, whole):
    (row,) = seen(site).consents
    study = Study.from_yaml(whole / "run" / "study.json")
    assert (row.digest, row.name, row.mode, row.ceiling) == (study.digest(), "tiny", "local", 8.0)
    state = json.loads((whole / "run" / "run.json").read_text())
    assert row.runs == (state["run_id"],)


def test_lines_of_the_ledger_in_words(site):
    lines = seen(site).lines
    assert lines[0].what == "stored: evaluate federated tables"
    assert lines[0].mechanism == "geometric noise"
    assert [line.what for line in lines if "round 4" in line.what] == [
        "stored: training, round 4",
        "reserved: training, round 4",
    ]
    assert lines[-1].what == "ledger begun"
    assert [line.line for line in lines] == list(range(len(lines), 0, -1))


def test_nothing_about_patients(site):
    patients = [f"site-a-patient-{i:03d}" for i in range(30)]
    text, plain = page(site)
    for shown in (text, json.dumps(plain)):
        assert not any(patient in shown for patient in patients)
        assert "n_patients" not in shown
        assert str(site / "private" / "split.key") not in shown


def test_a_withdrawn_consent_is_noted(site):
    (site / "site.yaml").write_text("site_id: site-a\n")
    assert ("notes", "TB503") in {(p.weight, p.code) for p in seen(site).problems}


def test_an_agent_that_answers(site):
    policy = load_policy(site)
    assert any("agent does not answer" in p.what for p in seen(site).problems)
    with serving(SiteAgent(policy), policy.state.parent / "agent.sock"):
        view = seen(site)
        assert view.agent == "waiting"
        assert view.problems == []
        text, plain = page(site)
        assert plain["agent"]["state"] == "idle"
        assert "Waiting" in text


def test_a_socket_that_hangs_or_is_none_is_no_agent(site, tmp_path):
    assert seen(site, socket=tmp_path / "none.sock").files.agent is None
    (tmp_path / "file.sock").write_text("x")
    assert seen(site, socket=tmp_path / "file.sock").files.agent is None


def test_little_budget_warns(site):
    keys = yaml.safe_load((site / "site.yaml").read_text())
    (site / "site.yaml").write_text(yaml.safe_dump(keys | {"lifetime_epsilon": 6.5}))
    assert ("warns", "TB410") in {(p.weight, p.code) for p in seen(site).problems}


def spend(number: int, digest: str) -> SpendEntry:
    return SpendEntry(
        study_digest=digest,
        run_id="r",
        round=number,
        model_digest="d" * 64,
        partition="train",
        purpose="train",
        mechanism="skellam",
        mu_squared=1e-6,
    )


def test_an_open_reservation_is_noted_and_counts(site, whole):
    policy = load_policy(site)
    digest = policy.approvals[0].study_digest
    ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
    ledger.reserve(spend(9, digest))
    (problem,) = [p for p in seen(site).problems if "reserved" in p.what]
    assert "round 9" in problem.what
    assert f"release {len(ledger.entries())}`" in problem.cure


def test_an_impossible_ceiling_stops(site):
    keys = yaml.safe_load((site / "site.yaml").read_text())
    (site / "site.yaml").write_text(yaml.safe_dump(keys | {"lifetime_epsilon": 1000.0}))
    assert ("stops", "TB400") in {(p.weight, p.code) for p in seen(site).problems}
    assert "<h1>" in page(site)[0]


def test_a_damaged_ledger_stops(site):
    ledger = site / "private" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"round":2', b'"round":7', 1))
    (problem,) = [p for p in seen(site).problems if p.weight == "stops"]
    assert problem.code == "TB420"
    assert page(site)[1]["ledger_head"] is None


def test_reading_while_the_agent_writes_is_never_taken_for_damage(site):
    policy = load_policy(site)
    digest = policy.approvals[0].study_digest
    ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
    done = threading.Event()

    def write():
        for number in count(10):
            ledger.commit(ledger.reserve(spend(number, digest)), "e" * 64)
            if number >= 60 and (len(sizes) > 5 or number >= 1000):
                break
        done.set()

    reader, sizes = LedgerReader(), set()
    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        reading = reader.read(policy)
        assert reading.problem is None
        sizes.add(len(reading.records))
    writer.join()
    assert len(sizes) > 5
    assert len(reader.read(policy).records) == len(ledger.entries())


def test_an_unchanged_ledger_is_not_verified_again(site, monkeypatch):
    reader, policy = LedgerReader(), load_policy(site)
    first = reader.read(policy)
    monkeypatch.setattr("client.page.site_files.read_ledger", None)
    assert reader.read(policy) is first


def test_every_file_may_be_missing_or_wrong(site):
    files = [f for f in site.rglob("*") if f.is_file() and f.suffix != ".reply"]
    for file in files:
        before = file.read_bytes()
        for content in (b"\xff\x00", before[: len(before) // 2]):
            file.write_bytes(content)
            assert "<h1>" in page(site)[0]
        file.unlink()
        assert "<h1>" in page(site)[0]
        file.write_bytes(before)
