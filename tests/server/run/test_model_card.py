"""A finished run says what its model is, and the next study that begins with it counts that."""

import json
import math
from contextlib import nullcontext

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dp_accounting.pld import privacy_loss_distribution as pld
from roster_lab import agent_of, make_lab
from roster_lab import study_of as study_of_lab
from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent.admission import check_composition
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
from common.models.base.weights_origin import _figures_hold, with_cards
from common.privacy.accounting import fallback_epsilon, gaussian_epsilon, gaussian_mu
from common.study.private_round import collusion_of, training_collusion_of
from common.study.site_policy import Approval
from common.trust.signature import public_half
from common.trust.weights_card import is_genuine, read_card, sign_card, weights_in_words, write_card
from common.wire import arrays_digest
from server.consortium.consortium_folder import ConsortiumFolder
from server.report.content import make_content
from server.run.finished_run import read_finished_run
from server.run.rounds import run_study
from server.session.checkpoint import read_arrays
from simulations.engines.consortium_run import local_link, run_in_process

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
    assert f"Origin of weights: {line}." in make_content(second).caveats
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


def lying(signed, key, **changes):
    """The card of a liar who has a key that the study knows."""
    records = [{**r.model_dump(), **changes} for r in signed.card.trainings]
    return sign_card(key, signed.card.sha256, trainings=records)


def with_card(study, signed):
    weights = study.weights.model_copy(update={"cards": [signed], "makers": [signed.maker]})
    return study.model_copy(update={"weights": weights})


def test_a_liar_cannot_make_noise_out_of_nothing(first):
    result, _ = first
    study, key = following(result), Ed25519PrivateKey.generate()
    honest = study.weights.cards[0]
    check_runnable(with_card(study, lying(honest, key)))
    lies = {
        "epsilon": {"epsilon": 1.0},
        "alone": {"fallback_epsilon": 1.0},
        "mu": {"mu_squared": honest.card.trainings[0].mu_squared / 2},
        "no noise": {"noise": {}},
        "sampled": {"noise": honest.card.trainings[0].noise | {"sampling_rate": 0.1}},
        "little": {"noise": honest.card.trainings[0].noise | {"share_variance_steps": 1.0}},
    }
    for lie in lies.values():
        with pytest.raises(PrivacyError, match="promises more than its noise gives"):
            check_runnable(with_card(study, lying(honest, key, **lie)))


def test_a_hospital_compares_a_card_with_its_own_ledger(first, tmp_path):
    """Whoever signs: it knows what it spent in a run, and whether plain updates left it."""
    result, folder = first
    key = Ed25519PrivateKey.generate()
    study = following(result)
    honest = study.weights.cards[0]
    own = spent_on_training(tiny_policy(study, "site-a", folder))
    assert inherited_spends(study, own) == []
    half = lying(honest, key, mu_squared=honest.card.trainings[0].mu_squared / 2)
    with pytest.raises(PrivacyError, match="says less of a run than this hospital spent"):
        inherited_spends(with_card(study, half), own)
    open_run = run(study_of("abc", mode="none"), tmp_path, "open")
    facts = {"run_id": open_run.run_id, "study_digest": open_run.study.digest()}
    own = spent_on_training(tiny_policy(study, "site-a", tmp_path))
    with pytest.raises(PrivacyError) as caught:
        inherited_spends(with_card(study, lying(honest, key, **facts)), own)
    assert caught.value.why == "plain updates left this hospital"


def test_the_server_refuses_a_random_trunk_before_any_hospital_is_asked(tmp_path):
    with pytest.raises(PrivacyError, match="drawn at random") as caught:
        run(study_of("abc", lora_rank=2), tmp_path, "run")
    assert caught.value.code == ErrorCode.WEIGHTS_ORIGIN
    assert not list(tmp_path.glob("site-*/private/ledger.jsonl.head")) or all(
        len(read_ledger(path)) == 1 for path in tmp_path.glob("site-*/private/ledger.jsonl")
    )


def test_a_distributed_run_states_both_figures_and_signs_as_its_coordinator(tmp_path):
    sites = tuple(f"site-{letter}" for letter in "abcde")
    make_lab(tmp_path, sites)
    lab = ConsortiumFolder.open(tmp_path / "lab")
    privacy = {"mode": "distributed", "epsilon": 8.0, "evaluation": {"release": "dp"}}
    study = study_of_lab(lab, privacy=privacy, training={"rounds": 2, "nominal_patients": 150})
    data = tiny_datasets(study)
    agents = {site: agent_of(lab, study, site, InMemory(data[site])) for site in sites}
    link = local_link(study, agents)
    result = run_study(study, link, lab.runs / "one", output=Output(json_mode=True))
    signed = read_card(result.run_dir / "model.safetensors")
    (record,) = signed.card.trainings
    assert signed.maker == public_half(lab.load_audit_key())
    assert set(record.hospitals) == set(sites)
    shares = collusion_of(study).shares
    assert shares > 1
    assert record.fallback_epsilon == pytest.approx(fallback_epsilon(8.0, DELTA, shares), rel=1e-3)
    key = Ed25519PrivateKey.generate()
    assert _figures_hold(lying(signed, key).card.trainings[0])
    # a hospital outside: both figures compose, and its ceiling if all collude is kept
    later = with_card(study, lying(signed, key))
    inherited = inherited_spends(later, [])
    epsilon, alone = composed_training(later, inherited)
    mu = gaussian_mu(8.0, DELTA)
    assert epsilon == pytest.approx(gaussian_epsilon(mu * math.sqrt(2), DELTA), rel=2e-3)
    assert alone == pytest.approx(gaussian_epsilon(mu * math.sqrt(2 * shares), DELTA), rel=2e-3)
    for ceiling, refused in ((alone * 1.01, False), (alone * 0.99, True), (None, False)):
        approval = Approval(
            study_digest=later.digest(), epsilon_ceiling=100, fallback_epsilon_ceiling=ceiling
        )
        with pytest.raises(PrivacyError, match="with the training") if refused else nullcontext():
            check_composition(later, approval, inherited)


def test_composition_counts_the_shares_of_a_groups_noise():
    privacy = {"mode": "distributed", "epsilon": 8.0, "groups": 3}
    sites = [{"site_id": f"site-{number}"} for number in range(12)]
    study = tiny_study(privacy=privacy | {"evaluation": {"release": "dp"}}, sites=sites)
    shares = training_collusion_of(study).shares
    assert shares < collusion_of(study).shares
    alone = composed_training(study, [])[1]
    assert alone == pytest.approx(fallback_epsilon(8.0, DELTA, shares), rel=1e-6)
