"""A coordinator that asks hospitals different questions gets no sum of their answers."""

import numpy as np
import pytest
from masked_consortium import Flaky, make_agents, make_study, run

import client.agent.secure_sums
import server.exchange.masked_replies
from common.errors import ErrorCode, RunError
from common.wire import arrays_digest


class LiedTo(Flaky):
    """A hospital that is asked another question than the coordinator's own code believes."""

    def __init__(self, agent, method, lie):
        super().__init__(agent, lambda *_: False)
        self._method, self._lie = method, lie

    def __getattr__(self, method):
        def call(request):
            asked = self._lie(request) if method == self._method else request
            reply = getattr(self._agent, method)(asked)
            if asked is request:
                return reply
            same = {n: getattr(request, n) for n in ("round", "model_digest")}
            if method == "evaluate":
                same |= {"label": request.label, "phase": request.phase}
            return reply.model_copy(update=same)

        return call


def another_model(request):
    arrays = {name: np.zeros_like(array) for name, array in request.arrays.items()}
    return request.model_copy(update={"arrays": arrays, "model_digest": arrays_digest(arrays)})


LIES = {
    "model to evaluate": ("evaluate", another_model),
    "model to train": ("train", another_model),
    "label": ("evaluate", lambda request: request.model_copy(update={"label": "other"})),
    "cuts": (
        "evaluate",
        lambda request: request.model_copy(update={"score_cuts": CUTS, "risk_threshold": 0.0}),
    ),
}
CUTS = {"response": [x / 10 for x in range(1, 10)]}


def lied_to(tmp_path, name):
    study = make_study(tmp_path, 5)
    agents = make_agents(study, tmp_path)
    for site_id in list(agents)[1:]:  # all but the victim
        agents[site_id] = LiedTo(agents[site_id], *LIES[name])
    return study, agents


@pytest.mark.parametrize("name", LIES)
def test_answers_to_different_questions_do_not_open(name, tmp_path):
    study, agents = lied_to(tmp_path, name)
    with pytest.raises(RunError) as caught:
        run(study, agents, tmp_path)
    assert caught.value.code == ErrorCode.QUORUM


@pytest.mark.parametrize("name", ["model to evaluate", "model to train"])
def test_the_lie_works_where_masks_are_not_bound_to_the_question(name, tmp_path, monkeypatch):
    """The attack itself is sound: without the binding the run ends as if nothing had happened."""
    for module in (client.agent.secure_sums, server.exchange.masked_replies):
        monkeypatch.setattr(module, "question_digest", lambda *_: "any")
    study, agents = lied_to(tmp_path, name)
    assert run(study, agents, tmp_path).evaluations
