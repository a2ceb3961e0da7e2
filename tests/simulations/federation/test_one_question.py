"""A coordinator that asks hospitals different questions gets no sum of their answers."""

import pytest
from masked_consortium import make_agents, make_study, run

import client.agent.secure_sums
import server.exchange.masked_replies
from common.errors import ErrorCode, RunError
from simulations.attackers.altered_agent import LIES, AlteredAgent


def lied_to(tmp_path, name):
    study = make_study(tmp_path, 5)
    agents = make_agents(study, tmp_path)
    for site_id in list(agents)[1:]:  # all but the victim
        agents[site_id] = AlteredAgent(agents[site_id], requests=dict([LIES[name]]))
    return study, agents


@pytest.mark.parametrize("name", LIES)
def test_answers_to_different_questions_do_not_open(name, tmp_path):
    study, agents = lied_to(tmp_path, name)
    with pytest.raises(RunError) as caught:
        run(study, agents, tmp_path)
    assert caught.value.code == ErrorCode.QUORUM


@pytest.mark.parametrize("name", ["another model to evaluate", "another model to train"])
def test_the_lie_works_where_masks_are_not_bound_to_the_question(name, tmp_path, monkeypatch):
    """The attack itself is sound: without the binding the run ends as if nothing had happened."""
    for module in (client.agent.secure_sums, server.exchange.masked_replies):
        monkeypatch.setattr(module, "question_digest", lambda *_: "any")
    study, agents = lied_to(tmp_path, name)
    assert run(study, agents, tmp_path).evaluations
