"""Files written before modules moved into rooms still open, verify and go on.

`tests/golden/before_the_move/make.py` wrote them with the code of that time.
"""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_consortium import tiny_agents, tiny_study
from unlimited_budgets import UNLIMITED

from client.extract.run.runner import run_extraction
from client.site.enrol_connection import SiteConnection, authority_digest
from client.site.site_folder import load_policy
from common.cohort.features_h5 import read_features
from common.cohort.manifest import read_manifest
from common.commands.cli_output import Output
from common.commands.study_freeze import freeze
from common.errors import ConfigError, ErrorCode, LedgerError, ProtocolError, RunError
from common.ledger.ledger import Ledger
from common.ledger.ledger_file import read_ledger
from common.ledger.recompose import recompose
from common.models.base.build import build_model
from common.models.base.weights_file import load_weights
from common.study.study import Study
from common.trust.audit_log import read_audit
from common.trust.join_request import read_join_request
from common.trust.provenance import code_digest
from common.trust.roster import read_roster
from server.consortium.consortium_folder import ConsortiumFolder
from server.session.checkpoint import load_checkpoint
from server.session.run_state import STATE_FILE, load_run_state
from simulations.engines.consortium_run import run_in_process

GOLDEN = Path(__file__).parent / "golden" / "before_the_move"
QUIET = Output(json_mode=True)
SITES = ("site-a", "site-b", "site-c")


@pytest.fixture
def old(tmp_path):
    """A copy that may be written to."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "old"))


def forge(file, before, after):
    """Change one place of a file as somebody with an editor would."""
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))
    return file


def test_a_frozen_study_keeps_its_digest(old):
    frozen = old / "study.frozen.json"
    announced = hashlib.sha256(frozen.read_bytes()).hexdigest()
    study = Study.from_yaml(frozen)
    assert study.digest() == announced
    assert freeze(study, frozen) == announced
    assert frozen.read_bytes() == (GOLDEN / "study.frozen.json").read_bytes()


def test_a_ledger_verifies_and_a_release_that_it_holds_costs_nothing(old):
    path = old / "distributed" / "sites" / "site-a" / "private" / "ledger.jsonl"
    records = read_ledger(path)
    spends = [record.entry for record in records if record.kind == "reserve"]
    assert [(e.purpose, e.round) for e in spends] == [("train", 1), ("train", 2)]
    assert all(account.agree for account in recompose(records, 1e-5, where=str(path)))
    ledger = Ledger(path, "site-a", UNLIMITED)
    before = ledger.spent(None, "train")
    assert before == pytest.approx(sum(e.mu_squared for e in spends))
    assert ledger.reserve(spends[1]).resumed
    assert ledger.reserve(spends[1].model_copy(update={"round": 3})).resumed is False
    assert ledger.spent(None, "train") == pytest.approx(before + spends[1].mu_squared)
    with pytest.raises(LedgerError):
        read_ledger(forge(path, '"round":2', '"round":9'))


def test_roster_join_request_and_kit_of_a_consortium_open(old):
    lab = ConsortiumFolder.open(old / "lab")
    roster = lab.roster()
    request = read_join_request(old / "hospital-a.request.json")
    member = roster.member("hospital-a")
    assert (member.identity, member.node_key) == (request.identity, request.node_key)
    kit = SiteConnection.of_site(old / "hospital-a")
    assert kit.roster() == roster
    assert authority_digest(lab.ca_cert) == kit.connection().ca_digest
    with pytest.raises(ProtocolError):
        read_roster(forge(lab.roster_file, "admitted", "revoked"), lab.roster_public_key())
    with pytest.raises(ProtocolError):
        read_join_request(forge(old / "hospital-a.request.json", "hospital-a", "hospital-b"))


def test_a_consent_is_still_to_the_same_study_and_signed(old):
    study = Study.from_yaml(old / "study.frozen.json")
    approval = load_policy(old / "hospital-a").approval_of(study.digest())
    assert approval.epsilon_ceiling == 4.0
    (consent,) = (old / "hospital-a" / "private" / "consents").iterdir()
    forge(consent, '"epsilon_ceiling":4.0', '"epsilon_ceiling":9.0')
    with pytest.raises(ConfigError):
        load_policy(old / "hospital-a")


def test_an_audit_log_verifies(old):
    path = old / "lab" / "audit.jsonl"
    events = [record.event for record in read_audit(path)]
    assert events == ["provisioned", "admitted", "kit_written"]
    with pytest.raises(LedgerError):
        read_audit(forge(path, '"event":"admitted"', '"event":"refused"'))


def test_features_open_and_are_not_extracted_again(old):
    study = Study.from_yaml(old / "study.frozen.json")
    policy = load_policy(old / "hospital-a")
    stored = {path: path.read_bytes() for path in policy.feature_store.glob("*/P1.h5")}
    table = read_features(policy.feature_store / "table" / "P1.h5").features
    assert table[0] == pytest.approx([0.1, 0, 1, 0, 0])
    manifest = read_manifest(policy.manifest)
    done = run_extraction(manifest, study.features, policy.feature_store, workers=0, output=QUIET)
    assert (done.skipped, done.done, done.failed) == (2, 0, [])
    assert {path: path.read_bytes() for path in stored} == stored


def test_weights_of_a_trunk_load(old):
    digest = json.loads((old / "trunk.json").read_text())["sha256"]
    model = build_model(tiny_study())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    load_weights(model, str(old / "trunk.safetensors"), digest)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("mode", ["none", "distributed"])
def test_a_run_stopped_half_way_is_refused_by_other_code_and_goes_on_otherwise(old, mode):
    run, sites = old / mode / "run", old / mode / "sites"
    state, half = load_run_state(run), load_checkpoint(run / "checkpoints")
    assert (state.phase, state.round, half.round) == ("round", 2, 2)
    study = Study.from_yaml(run / "study.json")
    assert study.digest() == state.study_digest

    def resumed():
        return run_in_process(study, tiny_agents(study, sites), run, output=QUIET)

    with pytest.raises(RunError) as refusal:
        resumed()
    assert refusal.value.code == ErrorCode.CODE_DIGEST
    forge(run / STATE_FILE, state.code_digest, code_digest())
    stored = {path: path.read_bytes() for path in sites.rglob("*.reply")}
    result = resumed()
    assert [record.round for record in result.history] == [1, 2, 3, 4]
    assert result.history[:2] == half.history
    assert all(path.read_bytes() == reply for path, reply in stored.items())
    for site_id in SITES if mode == "distributed" else ():
        records = read_ledger(sites / site_id / "private" / "ledger.jsonl")
        spends = [r.entry for r in records if r.kind == "reserve" and r.entry.partition == "train"]
        assert [entry.round for entry in spends] == [1, 2, 3, 4]
