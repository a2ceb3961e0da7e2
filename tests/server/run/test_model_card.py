"""A finished run says what its model is, and the next study that begins with it counts that."""

import json
import math

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent.site_agent import SiteAgent
from client.site.approval import make_approval
from client.site.inherited_spends import composed_training, inherited_spends, spent_on_training
from common.commands.cli_output import Output
from common.commands.study_freeze import check_runnable
from common.contract import sha256_hex
from common.errors import ErrorCode, PrivacyError, RunError
from common.ledger.ledger import Ledger, LedgerBudgets
from common.ledger.ledger_file import read_ledger
from common.ledger.recompose import recompose
from common.models.base.weights_origin import with_cards
from common.trust.weights_card import is_genuine, read_card, weights_in_words, write_card
from common.wire import arrays_digest
from server.run.finished_run import read_finished_run
from server.session.checkpoint import read_arrays
from simulations.engines.consortium_run import run_in_process

SMALL = {"width": 8, "heads": 2, "layers": 1, "latents": 2, "dropout": 0.0}
PRIVATE = {"mode": "local", "epsilon": 3.0, "evaluation": {"release": "dp"}}
DELTA = 1e-5


def study_of(sites, *, mode="local", study_id="first", origin=None, **options):
    return tiny_study(
        study_id=study_id,
        model={"name": "foundation", "options": SMALL | options},
        training={"rounds": 2},
        privacy=PRIVATE | {"mode": mode},
        weights=origin or {},
        sites=[{"site_id": f"site-{letter}"} for letter in sites],
    )


def run(study, folder, name, **rules):
    """Run a study; hospitals keep their folders from one to the next."""
    agents = {}
    for site_id, data in tiny_datasets(study).items():
        policy = tiny_policy(study, site_id, folder, modalities=list(data.modalities), **rules)
        agents[site_id] = SiteAgent(policy, InMemory(data))
    return run_in_process(study, agents, folder / name, output=Output(json_mode=True))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    return run(study_of("abc"), folder, "first"), folder


def following(result, **changes):
    """A study of other hospitals that begins with the model of a finished run."""
    file = result.run_dir / "model.safetensors"
    signed = read_card(file)
    options = {"weights": str(file), "sha256": signed.card.sha256, "lora_rank": 2}
    origin = {"makers": [signed.maker]} | changes.pop("origin", {})
    return with_cards(study_of("abd", study_id="second", origin=origin, **(options | changes)))


def ledger_of(site_id, folder):
    policy = tiny_policy(study_of("abc"), site_id, folder)
    return Ledger(policy.ledger, site_id, LedgerBudgets.from_policy(policy))


def test_the_card_says_on_whose_patients_and_at_what_price(first):
    result, folder = first
    file = result.run_dir / "model.safetensors"
    signed = read_card(file)
    (record,) = signed.card.trainings
    assert is_genuine(signed)
    assert signed.card.origin == "private"
    assert (record.run_id, record.study_digest) == (result.run_id, result.study.digest())
    assert (record.epsilon, record.delta, record.rounds) == (3.0, DELTA, 2)
    assert record.fallback_epsilon == pytest.approx(3.0, rel=1e-3)  # mode local: its own noise
    assert set(record.hospitals) == {"site-a", "site-b", "site-c"}
    for site_id, head in record.hospitals.items():
        assert head in {line.sha256 for line in ledger_of(site_id, folder).entries()}
        assert ledger_of(site_id, folder).spent(None, "train") == pytest.approx(record.mu_squared)
    before = file.read_bytes(), read_card(file)
    read_finished_run(result.run_dir)
    assert (file.read_bytes(), read_card(file)) == before


def test_a_model_of_a_private_run_begins_the_next_study(first):
    result, folder = first
    study = following(result)
    check_runnable(study)
    (line,) = weights_in_words(study)
    assert f"on patients of site-a, site-b, site-c in run {result.run_id}" in line
    assert "epsilon 3, delta 1e-05" in line
    second = run(study, folder, "second")
    start = read_arrays(result.run_dir / "model.safetensors")
    assert arrays_digest(second.arrays) != arrays_digest(start)
    # those who took part hold the first training already, the newcomer is charged for it
    for site_id, count in (("site-a", 0), ("site-b", 0), ("site-d", 1)):
        entries = [r.entry for r in ledger_of(site_id, folder).reservations()]
        inherited = [entry for entry in entries if entry.purpose == "inherited"]
        assert len(inherited) == count, site_id
        total = ledger_of(site_id, folder).epsilon(None, "train", DELTA)
        assert total == pytest.approx(twice_three(), rel=2e-3)
        accounts = recompose(
            read_ledger(tiny_policy(study, site_id, folder).ledger), DELTA, where=""
        )
        assert all(account.agree for account in accounts)
    ids = [r.run_id for r in read_card(second.run_dir / "model.safetensors").card.trainings]
    assert ids == [result.run_id, second.run_id]
    assert inherited_spends(study, spent_on_training(tiny_policy(study, "site-d", folder))) == []


def twice_three():
    """Epsilon of two trainings of epsilon 3, by the privacy loss distribution of two Gaussians."""
    low, high = 0.1, 10.0
    for _ in range(60):
        sigma = math.sqrt(low * high)
        one = pld.from_gaussian_mechanism(sigma, value_discretization_interval=1e-4)
        low, high = (sigma, high) if one.get_epsilon_for_delta(DELTA) > 3.0 else (low, sigma)
        if high / low < 1 + 1e-5:
            break
    one = pld.from_gaussian_mechanism(high, value_discretization_interval=1e-4)
    return one.self_compose(2).get_epsilon_for_delta(DELTA)


def test_the_budget_of_a_newcomer_must_cover_both(first, tmp_path):
    result, _ = first
    study = following(result)
    inherited = inherited_spends(study, [])
    epsilon, alone = composed_training(study, inherited)
    assert epsilon == pytest.approx(twice_three(), rel=2e-3) == alone
    policy = tiny_policy(study, "site-d", tmp_path)
    ceilings = {"announced": None, "epsilon": None, "fallback_epsilon": None}
    assert make_approval(policy, study, **ceilings).epsilon_ceiling == epsilon
    with pytest.raises(RunError) as caught:
        run(study, tmp_path, "run", lifetime_epsilon=4.0)
    assert caught.value.code == ErrorCode.QUORUM
    states = json.loads((tmp_path / "run" / "run.json").read_text())["sites"]
    assert states["site-d"]["refusal_code"] == ErrorCode.BUDGET
    # the card is a witness: a and b took part, and their ledgers here are new
    for site_id in ("site-a", "site-b"):
        assert states[site_id]["refusal_code"] == ErrorCode.LEDGER_ROLLBACK


def tampered(signed, change):
    body = json.loads(signed.model_dump_json())
    change(body)
    return type(signed).model_validate(body)


CHANGES = {
    "epsilon": lambda b: b["card"]["trainings"][0].update(epsilon=0.5),
    "hospital": lambda b: b["card"]["trainings"][0]["hospitals"].pop("site-a"),
    "maker": lambda b: b.update(maker="0" * 63 + "1"),
    "date": lambda b: b["card"].update(made="2030-01-01"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_altered_card_is_refused_whatever_the_words(name, first):
    result, _ = first
    study = following(result, origin={"accept_origin": "we know these weights well"})
    signed = tampered(study.weights.cards[0], CHANGES[name])
    weights = study.weights.model_copy(
        update={"cards": [signed], "makers": [*study.weights.makers, signed.maker]}
    )
    with pytest.raises(PrivacyError, match="card of weights was altered"):
        check_runnable(study.model_copy(update={"weights": weights}))


def test_a_card_of_nobody_the_study_knows_is_refused(first):
    result, _ = first
    study = following(result, origin={"makers": []})
    with pytest.raises(PrivacyError, match="signed by nobody the study knows"):
        check_runnable(study)


def test_a_card_of_other_weights_is_no_card(first, tmp_path):
    result, _ = first
    data = bytearray((result.run_dir / "model.safetensors").read_bytes())
    data[-1] ^= 1
    file = tmp_path / "model.safetensors"
    file.write_bytes(data)
    study = following(result)
    write_card(file, study.weights.cards[0])
    options = study.model.options | {"weights": str(file)}
    with pytest.raises(Exception, match="not the one of the study"):
        check_runnable(changed(study, options))
    renamed = changed(study, options | {"sha256": sha256_hex(bytes(data))})
    with pytest.raises(PrivacyError, match="have no card in the study"):
        check_runnable(with_cards(renamed))


def changed(study, options):
    model = study.model.model_copy(update={"options": options})
    return study.model_copy(update={"model": model})


def test_one_private_round_does_not_launder_weights(tmp_path):
    """Open weights, accepted in words, stay in doubt in what is trained from them."""
    open_run = run(study_of("abc", mode="none"), tmp_path, "open")
    with pytest.raises(PrivacyError, match="trained without privacy on patients of site-a"):
        check_runnable(following(open_run))
    words = "only hospital a, b and c ever see this model"
    study = following(open_run, origin={"accept_origin": words}, lora_rank=0)
    check_runnable(study)
    private_run = run(study, tmp_path, "private")
    card = read_card(private_run.run_dir / "model.safetensors").card
    assert card.origin == "unknown"
    assert any(words in doubt for doubt in card.doubts)
    with pytest.raises(PrivacyError, match=f"accepted because: {words}"):
        check_runnable(following(private_run))
