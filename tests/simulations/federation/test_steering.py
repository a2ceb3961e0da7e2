"""One hospital that sends a lie as long as passes unseen, in mode distributed."""

import numpy as np
import pytest
from masked_consortium import Flaky, make_agents, make_study, run, spends

from common.errors import ErrorCode, RunError
from common.privacy.integer_encoding import flatten
from common.study.private_round import encoding_of
from simulations.attackers.altered_agent import AlteredAgent, zeroed

LIAR = "site-c"


class Steering(Flaky):
    """A hospital that adds a vector of its own choice to its masked upload.

    Masks are added modulo 2^64, so that whatever is added to the upload is in the opened sum.
    """

    def __init__(self, agent, study, length):
        super().__init__(agent, lambda *_: False)
        self._study, self._length = study, length

    def __getattr__(self, method):
        def call(request):
            reply = getattr(self._agent, method)(request)
            if method != "train":
                return reply
            shapes = {name: array.shape for name, array in request.arrays.items()}
            lie = direction(request.arrays) * self._length / encoding_of(self._study, shapes).step
            arrays = dict(reply.arrays)
            arrays["masked"] = arrays["masked"] + np.rint(lie).astype(np.int64)
            return reply.model_copy(update={"arrays": arrays})

        return call


def direction(arrays):
    """Return where the liar wants the gradient to point: the same in every coordinate."""
    size = sum(array.size for array in arrays.values())
    return np.full(size, size**-0.5)


def steered(tmp_path, study, share):
    """Run a study whose liar sends so many times clip times the nominal patients of all."""
    agents = make_agents(study, tmp_path)
    length = share * study.privacy.clip * study.training.nominal_patients
    agents[LIAR] = Steering(agents[LIAR], study, length)
    return run(study, agents, tmp_path)


def pull(study, result):
    """Return how far the model went against the lie, per step of the server."""
    along = flatten(result.arrays) @ direction(result.arrays)
    return -float(along) / (study.training.server.lr * study.training.rounds)


GROUPS = {
    "privacy": {"groups": 3},
    "training": {"rounds": 10, "average_last": 0.0, "server": {"name": "sgd", "lr": 1.0}},
}


def plain_steps(tmp_path, **changes):
    training = {"average_last": 0.0, "server": {"name": "sgd", "lr": 1.0}}
    return make_study(tmp_path, **{"training": training, **changes})


def test_a_lie_longer_than_all_patients_together_opens_no_round(tmp_path, caplog):
    study = plain_steps(tmp_path)
    with pytest.raises(RunError) as caught:
        steered(tmp_path, study, 9.0)
    assert caught.value.code == ErrorCode.QUORUM
    assert caplog.text.count("sum_refused") == 3


def test_the_lie_passes_where_the_bound_is_ten_times_the_patients(tmp_path, monkeypatch):
    """The attack itself is sound: under the bound of old the liar alone decides the model."""
    monkeypatch.setattr(
        "server.exchange.validate_reply.longest_sum",
        lambda encoding, patients, n: 10 * encoding.clip * patients + encoding.noise_sd(n) * 100,
    )
    study = plain_steps(tmp_path)
    result = steered(tmp_path, study, 9.0)
    assert all(record.sites for record in result.history)
    assert pull(study, result) > 0.9 * 9.0 * study.privacy.clip


def test_in_groups_the_liar_is_named_and_left_out(tmp_path):
    """As long as the groups' bound lets in, and in every round: found as soon as can be."""
    study = make_study(tmp_path, 9, **GROUPS)
    result = steered(tmp_path, study, 0.3)  # a group of three may hold a third of all patients
    named = [record.facts.get("steering", []) for record in result.history]
    assert named[-1] == [LIAR]
    assert sum(names == [LIAR] for names in named) >= 3
    assert all(names in ([], [LIAR]) for names in named)
    assert all(len(record.sites) == 9 for record in result.history)
    assert spends(study, "site-a", tmp_path) == list(range(1, 11))


def test_a_liar_that_is_too_loud_is_put_out_of_the_run(tmp_path):
    """Only its own groups' sums are void, and those tell who it is."""
    study = make_study(tmp_path, 12, privacy={"groups": 3}, training={"rounds": 8})
    result = steered(tmp_path, study, 9.0)
    sizes = [len(record.sites) for record in result.history]
    named = [record.round for record in result.history if LIAR in record.dropped]
    assert result.sites[LIAR].refusal_code == ErrorCode.FALSE_SHARES
    assert set(sizes[: named[0]]) == {8}
    assert set(sizes[named[0] :]) == {11}
    others = [name for name in result.sites if name != LIAR]
    assert all(result.sites[name].refusal_code is None for name in others)


def test_a_group_that_loses_a_site_is_void_and_the_others_count(tmp_path):
    study = make_study(tmp_path, 12, privacy={"groups": 4}, training={"rounds": 2})
    agents = make_agents(study, tmp_path)
    agents["site-b"] = Flaky(agents["site-b"], lambda m, r: m == "train" and r.round == 1)
    result = run(study, agents, tmp_path)
    assert [len(record.sites) for record in result.history] == [9, 12]
    assert "site-b" not in result.history[0].sites
    assert spends(study, "site-a", tmp_path) == [1, 2]
    assert spends(study, "site-b", tmp_path) == [2]


def test_a_liar_of_shares_is_put_out_of_its_group_and_the_run(tmp_path):
    study = make_study(tmp_path, 12, privacy={"groups": 4}, training={"rounds": 2})
    agents = make_agents(study, tmp_path)
    agents[LIAR] = AlteredAgent(agents[LIAR], replies={"train": zeroed("sealed_shares")})
    result = run(study, agents, tmp_path)
    assert [len(record.sites) for record in result.history] == [9, 11]
    assert result.history[0].dropped == {LIAR: str(ErrorCode.FALSE_SHARES)}
    assert result.sites[LIAR].refusal_code == ErrorCode.FALSE_SHARES
