"""A hospital with a site kit goes by the newest signed roster, and takes no hospital off it."""

import errno
import json
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from roster_lab import agent_of, connection_of, copy_lab, make_lab, study_of
from tiny_consortium import InMemory, tiny_datasets, tiny_policy

from client.agent.call_journal import CallJournal
from client.agent.dispatch import answer
from client.agent.log_files import audit_path, site_audit_log
from client.agent.secure_sums import SecureSums
from client.agent.socket_call import AgentRefusalError
from common.commands.cli_output import Output
from common.contract import canonical_json
from common.errors import ErrorCode, ProtocolError, RunError
from common.protocol.protocol import HandshakeReply, HandshakeRequest
from common.secure_sum.keys import KeyAdvert
from common.secure_sum.messages import AgreeKeysRequest, UnmaskRequest
from common.study.study import RosterEntry
from common.trust.audit_log import read_audit
from common.trust.provenance import code_digest
from common.trust.roster import Roster, SignedRoster
from common.trust.signature import public_half
from server.consortium.provision_roster import revoke
from server.run.rounds import run_study
from simulations.engines.consortium_run import local_link

SITES = ("site-a", "site-b", "site-c")
STRANGER = RosterEntry(site_id="site-x", public_key="ab" * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A consortium of three joined hospitals, made once."""
    folder = tmp_path_factory.mktemp("made")
    make_lab(folder, SITES)
    return folder


@pytest.fixture
def lab(made, tmp_path):
    return copy_lab(made, tmp_path, SITES)


def with_sites(study, *sites):
    return study.model_copy(update={"sites": list(sites)})


def handshake(study, roster_json, **changes):
    facts = {
        "run_id": "run-1",
        "study_json": canonical_json(study.model_dump(mode="json")),
        "study_digest": study.digest(),
        "code_digest": code_digest(),
        "roster_json": roster_json,
    }
    return HandshakeRequest.model_validate(facts | changes)


def lines_of(lab, site="site-a"):
    return read_audit(audit_path(tiny_policy(study_of(lab), site, lab.root.parent)))


def signed(lab, roster, key=None):
    return SignedRoster.make(roster, key or lab.load_roster_key()).text()


def altered(lab):
    body = lab.signed_roster().model_dump(mode="json")
    body["roster"]["version"] += 1
    return json.dumps(body)


def older(lab):
    return signed(lab, lab.roster().model_copy(update={"version": 1, "members": []}))


def of_another_key(lab):
    return signed(lab, lab.roster().following([]), Ed25519PrivateKey.generate())


def of_another_consortium(lab):
    return signed(lab, lab.roster().following([]).model_copy(update={"consortium": "other"}))


def contradicting(lab):
    return signed(lab, lab.roster().model_copy(update={"members": lab.roster().members[:2]}))


ROSTERS = {
    "altered": altered,
    "older": older,
    "of another key": of_another_key,
    "of another consortium": of_another_consortium,
    "contradicting": contradicting,
    "not JSON": lambda _lab: '{"roster"',
    "nested without end": lambda _lab: "[" * 100_000,
    "not a roster": lambda _lab: "[]",
}


@pytest.mark.parametrize("name", ROSTERS)
def test_a_wrong_roster_is_refused_and_changes_nothing(name, lab):
    study, known = study_of(lab), connection_of(lab, "site-a").roster_file.read_bytes()
    agent = agent_of(lab, study, "site-a")
    journal = CallJournal("site-a", site_audit_log(agent._policy))
    request = handshake(study, ROSTERS[name](lab))
    reply = HandshakeReply.decode(*answer(agent, "handshake", *request.encode(), journal))
    assert (reply.accepted, reply.refusal_code) == (False, ErrorCode.ROSTER)
    assert connection_of(lab, "site-a").roster_file.read_bytes() == known
    assert [line.code for line in lines_of(lab) if line.event == "call"] == [ErrorCode.ROSTER]
    assert not [line for line in lines_of(lab) if line.event == "roster_taken"]


def invented(lab, study):
    return with_sites(study, *study.sites, STRANGER), lab.roster()


def revoked(lab, study):
    return study, revoke(lab, "site-b", "left")


def changed_key(lab, study):
    other = study.sites[1].model_copy(update={"public_key": "cd" * 32})
    return with_sites(study, study.sites[0], other, study.sites[2]), lab.roster()


def without_key(lab, study):
    other = study.sites[1].model_copy(update={"public_key": None})
    return with_sites(study, study.sites[0], other, study.sites[2]), lab.roster()


def itself_revoked(lab, study):
    return study, revoke(lab, "site-a", "left")


STUDIES = {
    "invented hospital": invented,
    "revoked hospital": revoked,
    "changed key": changed_key,
    "no key": without_key,
    "the hospital itself is revoked": itself_revoked,
}


@pytest.mark.parametrize("carried", [True, False], ids=["with the handshake", "known before"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_against_the_roster_is_refused_before_data_is_read(name, carried, lab):
    study, roster = STUDIES[name](lab, study_of(lab))
    if not carried:
        shutil.copy(lab.roster_file, connection_of(lab, "site-a").root)
    reply = agent_of(lab, study, "site-a").handshake(
        handshake(study, signed(lab, roster) if carried else None)
    )
    assert (reply.accepted, reply.refusal_code) == (False, ErrorCode.ROSTER)
    assert connection_of(lab, "site-a").roster() == lab.roster()


def test_a_newer_roster_is_stored_and_noted_once(lab):
    study = study_of(lab)
    datasets = tiny_datasets(study)
    newer = lab.roster().following(lab.roster().members)
    agent = agent_of(lab, study, "site-a", InMemory(datasets["site-a"]))
    for _ in range(2):
        assert agent.handshake(handshake(study, signed(lab, newer))).accepted
    assert connection_of(lab, "site-a").roster() == newer
    taken = [line.facts for line in lines_of(lab) if line.event == "roster_taken"]
    assert [(f["before"], f["roster_version"], f["source"]) for f in taken] == [(4, 5, "handshake")]
    assert taken[0]["roster_digest"] == newer.digest()


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, ErrorCode.CONFIG), (errno.ENOSPC, ErrorCode.DISK_FULL)]
)
def test_a_roster_that_cannot_be_stored_lets_nothing_out(number, code, lab, monkeypatch):
    def fails(*_args):
        raise OSError(number, "refused", "roster.json")

    monkeypatch.setattr(SignedRoster, "write", fails)
    study = study_of(lab)
    newer = lab.roster().following(lab.roster().members)
    request = handshake(study, signed(lab, newer))
    try:
        reply = answer(agent_of(lab, study, "site-a"), "handshake", *request.encode())
        told = HandshakeReply.decode(*reply).refusal_code
    except AgentRefusalError as refusal:
        told = refusal.code
    assert told == code


def test_without_a_kit_nothing_is_checked(lab):
    study, _ = invented(lab, study_of(lab))
    shutil.rmtree(connection_of(lab, "site-a").root)
    provider = InMemory(tiny_datasets(study)["site-a"])
    agent = agent_of(lab, study, "site-a", provider)
    assert agent.handshake(handshake(study, of_another_key(lab))).accepted
    assert not connection_of(lab, "site-a").root.exists()


class TestARevocationWhileAStudyRuns:
    """The run goes on with the others; nothing is added up with the one that has gone."""

    @pytest.fixture
    def running(self, lab):
        privacy = {"mode": "distributed", "epsilon": 8.0, "evaluation": {"release": "dp"}}
        study = study_of(lab, privacy=privacy)
        agent = agent_of(lab, study, "site-a", InMemory(tiny_datasets(study)["site-a"]))
        assert agent.handshake(handshake(study, None)).accepted
        return lab, study, agent

    def test_the_same_run_is_accepted_again_and_another_is_not(self, running):
        lab, study, agent = running
        newer = signed(lab, revoke(lab, "site-b", "left"))
        assert agent.handshake(handshake(study, newer)).accepted
        again = agent.handshake(handshake(study, newer, run_id="run-2"))
        assert again.refusal_code == ErrorCode.ROSTER

    def test_no_keys_are_agreed_and_no_sum_is_opened_with_it(self, running, monkeypatch):
        lab, study, agent = running
        monkeypatch.setattr(SecureSums, "agree", lambda *_: "agreed")
        monkeypatch.setattr(SecureSums, "unmask", lambda *_: "opened")
        agent.handshake(handshake(study, signed(lab, revoke(lab, "site-b", "left"))))

        def agree(*sites):
            adverts = [KeyAdvert.model_construct(site_id=site) for site in sites]
            fields = {"run_id": "run-1", "session": 1, "adverts": adverts}
            return agent.agree_keys(AgreeKeysRequest.model_construct(**fields))

        def unmask(*sites):
            request = UnmaskRequest(run_id="run-1", session=1, round=1, survivors=list(sites))
            return agent.unmask(request)

        assert (agree("site-a", "site-c"), unmask("site-a", "site-c")) == ("agreed", "opened")
        for call in (agree, unmask):
            with pytest.raises(ProtocolError, match="secure sum") as caught:
                call(*SITES)
            assert caught.value.code == ErrorCode.ROSTER

    def test_a_hospital_that_is_revoked_itself_stops(self, running):
        lab, study, agent = running
        revoke(lab, "site-a", "left")
        shutil.copy(lab.roster_file, connection_of(lab, "site-a").root)
        request = UnmaskRequest(run_id="run-1", session=1, round=1, survivors=["site-c"])
        for each in (
            agent,
            agent_of(lab, study, "site-a"),
        ):  # the second is restarted and reads no patient
            with pytest.raises(AgentRefusalError) as caught:
                answer(each, "unmask", *request.encode())
            assert caught.value.code == ErrorCode.ROSTER


class Hostile:
    """A link whose server sends another roster than its own."""

    def __init__(self, link, roster_json):
        self._link, self._roster = link, roster_json

    def site_ids(self):
        return self._link.site_ids()

    def exchange(self, method, requests, **options):
        if method == "handshake":
            change = {"roster_json": self._roster}
            requests = {s: r.model_copy(update=change) for s, r in requests.items()}
        return self._link.exchange(method, requests, **options)


@pytest.mark.parametrize("name", ["altered", "older", "of another key"])
def test_the_code_reaches_the_coordinator_and_its_log(name, lab):
    study = study_of(lab)
    agents = {site: agent_of(lab, study, site) for site in SITES}
    link = Hostile(local_link(study, agents), ROSTERS[name](lab))
    refused(lab, study, link, SITES)


@pytest.mark.parametrize("change", [invented, changed_key], ids=["invented", "changed key"])
def test_a_server_that_was_broken_into_cannot_invent_a_hospital(change, lab):
    """It signs a roster of its own and believes it; the hospitals do not."""
    quick = {"round_timeout_s": 1.0}
    study, _ = change(lab, study_of(lab, quorum=quick))
    agents = {site: agent_of(lab, study, site) for site in SITES}
    own = Ed25519PrivateKey.generate()
    names = {entry.site_id: entry.public_key for entry in study.sites}
    members = lab.roster().members
    kept = [m.model_copy(update={"identity": names[m.site_id]}) for m in members]
    if "site-x" in names:
        key = {"node_key": "ecdsa-sha2-nistp384 " + "A" * 120, "identity": names["site-x"]}
        kept.append(members[0].model_copy(update={"site_id": "site-x", **key}))
    lab.roster_public.write_text(public_half(own) + "\n")
    claimed = Roster(consortium="lab", version=9, members=kept)
    SignedRoster.make(claimed, own).write(lab.roster_file)
    asked = ["site-a", "site-c"]  # under another key site-b cannot prove that it is site-b
    refused(lab, study, local_link(study, agents), asked)


def test_a_revoked_hospital_in_a_new_study_is_refused_by_all(lab):
    study = study_of(lab)
    agents = {site: agent_of(lab, study, site) for site in SITES}
    revoke(lab, "site-b", "left")
    with pytest.raises(RunError):
        run_study(study, local_link(study, agents), lab.runs / "run", output=Output(json_mode=True))
    told = {r.site: r.code for r in events(lab, "not_enrolled")}
    assert told == dict.fromkeys(["site-a", "site-c"], ErrorCode.ROSTER)
    assert [r.site for r in events(lab, "site_revoked")] == ["site-b"]


def refused(lab, study, link, sites):
    """Run the study; these hospitals refuse with ROSTER, and the log says so."""
    with pytest.raises(RunError) as caught:
        run_study(study, link, lab.runs / "run", output=Output(json_mode=True))
    assert caught.value.code == ErrorCode.QUORUM
    told = {r.site: r.code for r in events(lab, "not_enrolled") if r.site in sites}
    assert told == dict.fromkeys(sites, ErrorCode.ROSTER)


def events(lab, event):
    return [r for r in read_audit(lab.audit) if r.event == event]
