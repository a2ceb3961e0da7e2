"""A hospital that sends garbage into a secure sum is named, and costs the others one round."""

import pytest
from masked_consortium import make_agents, make_study, run, spends

from common.errors import ErrorCode
from simulations.attackers.altered_agent import GARBAGE, AlteredAgent

LIAR = "site-c"


@pytest.mark.parametrize("what", GARBAGE)
def test_a_run_goes_on_without_the_liar(what, tmp_path):
    study = make_study(tmp_path, 7, privacy={"colluders": 1, "n_min": 5})
    agents = make_agents(study, tmp_path)
    agents[LIAR] = AlteredAgent(agents[LIAR], replies=dict([GARBAGE[what]]))
    result = run(study, agents, tmp_path)
    first, *later = result.history
    assert first.sites == []
    assert first.dropped == {LIAR: str(ErrorCode.FALSE_SHARES)}
    assert [len(record.sites) for record in later] == [6, 6, 6]
    assert result.sites[LIAR].refusal_code == ErrorCode.FALSE_SHARES
    assert spends(study, "site-a", tmp_path) == [1, 2, 3, 4]
