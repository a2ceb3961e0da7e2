"""A coordinator may not ask about held-out patients whatever it likes, as often as it likes."""

import numpy as np
import pytest
from tiny_consortium import tiny_agents, tiny_datasets, tiny_policy, tiny_study

from client.agent.questions import check_question
from common.commands.cli_output import Output
from common.errors import ErrorCode, ProtocolError
from common.protocol.evaluation_request import planned_evaluation
from common.wire import arrays_digest
from simulations.engines.consortium_run import run_in_process


@pytest.fixture(params=["internal", "dp"])
def finished(request, tmp_path):
    """A finished run with its agents, and the requests of its evaluation without a model."""
    evaluation = {"release": request.param}
    study = tiny_study(privacy={"mode": "none", "evaluation": evaluation})
    agents = tiny_agents(study, tmp_path / "sites", datasets=tiny_datasets(study, n=40))
    result = run_in_process(study, agents, tmp_path / "run", output=Output(json_mode=True))
    return result, agents["site-a"], planned_evaluation(study, result.run_id, request.param)


def crafted(result, seed=0):
    """A model of the coordinator's own making; it may turn features into scores."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=a.shape).astype("f4") for name, a in result.arrays.items()}
    return {"arrays": arrays, "model_digest": arrays_digest(arrays)}


def refused(agent, request):
    with pytest.raises(ProtocolError) as caught:
        agent.evaluate(request)
    return caught.value.code == ErrorCode.POLICY


def test_other_models_labels_rounds_and_cuts_are_refused(finished):
    result, agent, planned = finished
    real = {"arrays": result.arrays, "model_digest": result.model_digest}
    for request in planned:
        assert refused(agent, request.model_copy(update=crafted(result)))
        assert refused(agent, request.model_copy(update=crafted(result) | {"label": "start"}))
        assert refused(agent, request.model_copy(update=real | {"round": 1}))
        cuts = {"score_cuts": {"response": list(range(1, 16))}, "phase": "tables"}
        assert refused(agent, request.model_copy(update=real | cuts))


def test_the_very_same_question_is_answered_again_with_the_same_bytes(finished):
    result, agent, planned = finished
    real = {"arrays": result.arrays, "model_digest": result.model_digest}
    if planned[0].phase == "margins":
        again = [agent.evaluate(planned[0].model_copy(update=real)) for _ in range(2)]
        assert again[0].encode() == again[1].encode()


@pytest.mark.parametrize("runs", [1, 3])
def test_exact_tables_leave_in_as_many_runs_as_the_consent_says(runs, tmp_path):
    study = tiny_study(privacy={"mode": "none", "evaluation": {"release": "internal"}})
    data = tiny_datasets(study, n=40)
    agents = tiny_agents(study, tmp_path / "sites", datasets=data)
    for site_id, agent in agents.items():
        policy = tiny_policy(study, site_id, tmp_path / "sites")
        consent = policy.approvals[0].model_copy(update={"exact_runs": runs})
        agent._policy = policy.model_copy(update={"approvals": [consent]})
    for number in range(runs + 1):
        folder = tmp_path / f"run-{number}"
        if number < runs:
            assert run_in_process(study, agents, folder, output=Output(json_mode=True)).evaluations
        else:
            with pytest.raises(Exception, match=str(ErrorCode.POLICY)):
                run_in_process(study, agents, folder, output=Output(json_mode=True))


@pytest.mark.parametrize("finished", ["internal"], indirect=True)
def test_a_run_in_which_the_hospital_trained_nothing_gets_no_exact_table(finished):
    result, agent, planned = finished
    request = planned[0].model_copy(update={**crafted(result), "run_id": "run-of-nobody"})
    past = agent._spending.released(result.study)
    with pytest.raises(ProtocolError, match="trained no round"):
        check_question(result.study, request, past, 9)
