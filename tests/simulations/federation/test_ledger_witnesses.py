"""A ledger that went back is noticed by the other hospitals, without the server's help."""

import shutil

import numpy as np
import pytest
from masked_consortium import Flaky, make_agents, make_study, run

import client.agent.training
from client.site.witnesses import Witnesses
from common.errors import ErrorCode, LedgerError
from common.ledger.ledger_file import read_ledger
from simulations.attackers.altered_agent import AlteredAgent, changed

VICTIM = "site-a"


def private(folder):
    return folder / "sites" / VICTIM / "private"


def trained(study, folder, name, before=None):
    """One whole run by a server that forgets; returns its result."""
    forgets = {"handshake": changed(ledger_head=None)}
    agents = {
        n: AlteredAgent(agent, requests=forgets) for n, agent in make_agents(study, folder).items()
    }
    if before is not None:
        agents[VICTIM] = Flaky(agents[VICTIM], before)
    place = folder / name
    place.mkdir(exist_ok=True)
    return run(study, agents, place)


def spent_rounds(folder):
    records = read_ledger(private(folder) / "ledger.jsonl")
    return [r.entry.round for r in records if r.entry and r.entry.partition == "train"]


def study_of(folder, rounds=2):
    return make_study(folder, 5, training={"rounds": rounds}, privacy={"epsilon": 4.0})


def test_honest_runs_one_after_the_other_are_not_disturbed(tmp_path):
    study = study_of(tmp_path)
    for name in ("first", "second"):
        result = trained(study, tmp_path, name)
        assert [len(record.sites) for record in result.history] == [5] * 2
    remembered = Witnesses(private(tmp_path) / "state" / "witnesses.json")
    assert len(remembered.of_others(VICTIM)) == 4
    assert remembered.of("site-b").run_id == result.run_id


@pytest.mark.parametrize("what", ["ledger", "ledger and state"])
def test_a_restored_backup_is_refused_in_the_next_run(what, tmp_path):
    study = study_of(tmp_path)
    trained(study, tmp_path, "first")
    shutil.copytree(private(tmp_path), tmp_path / "backup")
    trained(study, tmp_path, "second")
    after = len(spent_rounds(tmp_path))
    if what == "ledger":
        for file in (tmp_path / "backup").glob("ledger*"):
            shutil.copy2(file, private(tmp_path) / file.name)
    else:
        shutil.rmtree(private(tmp_path))
        shutil.copytree(tmp_path / "backup", private(tmp_path))
    restored = len(spent_rounds(tmp_path))
    assert restored < after
    third = trained(study, tmp_path, "third")
    assert len(spent_rounds(tmp_path)) == restored  # nothing is spent a second time
    assert third.sites[VICTIM].refusal_code is not None or all(
        VICTIM not in record.sites for record in third.history
    )


def test_a_ledger_put_back_in_mid_run_stops_at_the_next_sum(tmp_path):
    study = study_of(tmp_path, rounds=4)
    copy = tmp_path / "copy"

    def put_back(method, request):
        if method == "train" and request.round == 2:
            shutil.copytree(private(tmp_path), copy, dirs_exist_ok=True)
        if method == "train" and request.round == 4:
            for file in copy.rglob("*"):
                if file.is_file():
                    target = private(tmp_path) / file.relative_to(copy)
                    shutil.copy2(file, target)
        return False

    result = trained(study, tmp_path, "run", put_back)
    last = result.history[-1]
    assert VICTIM not in last.sites


def test_a_deleted_ledger_is_not_born_again(tmp_path):
    study = study_of(tmp_path)
    trained(study, tmp_path, "first")
    for file in private(tmp_path).glob("ledger*"):
        file.unlink()
    with pytest.raises(LedgerError) as caught:
        make_agents(study, tmp_path)
    assert caught.value.code == ErrorCode.LEDGER_ROLLBACK


def test_a_round_computed_again_from_a_backup_shows_nothing_of_its_noise(tmp_path):
    """Two uploads of one sum with the same masks would differ by the difference of the noises."""
    study = study_of(tmp_path)
    agents, backup, uploads = make_agents(study, tmp_path), tmp_path / "backup", []

    def copied(request):
        if request.round == 1 and not backup.exists():
            shutil.copytree(private(tmp_path), backup)
            uploads.append(request)
        return request

    def kept(reply):
        uploads.append(reply.arrays["masked"])
        return reply

    agents[VICTIM] = AlteredAgent(
        agents[VICTIM], requests={"train": copied}, replies={"train": kept}
    )
    run(study, agents, tmp_path)
    request, first, *_ = uploads
    shutil.rmtree(private(tmp_path))
    shutil.copytree(backup, private(tmp_path))
    again = make_agents(study, tmp_path)[VICTIM].train(request).arrays["masked"]
    difference = (again.view(np.uint64) - first.view(np.uint64)).view(np.int64)
    assert np.median(np.abs(difference.astype(float))) > 2.0**58


def test_a_round_that_failed_in_one_hospital_is_computed_again(tmp_path, monkeypatch):
    """The second mark of the same reservation is the first one, which everybody can follow."""
    study = make_study(
        tmp_path, 5, training={"rounds": 2}, privacy={"epsilon": 4.0, "colluders": 1, "n_min": 5}
    )
    agents, failed = make_agents(study, tmp_path), []

    def once(*arguments, **named):
        if not failed:
            failed.append(True)
            raise MemoryError
        return honest(*arguments, **named)

    honest = client.agent.training.clipped_gradient_sum
    monkeypatch.setattr(client.agent.training, "clipped_gradient_sum", once)
    result = run(study, agents, tmp_path)
    assert [len(record.sites) for record in result.history] == [5, 5]
