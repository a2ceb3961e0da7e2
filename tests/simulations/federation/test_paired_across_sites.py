"""Two models compared on the same patients through real agents, from joint tables alone."""

import numpy as np
import pytest
from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent.site_agent import SiteAgent
from common.commands.cli_output import Output
from common.errors import ErrorCode, ProtocolError
from common.protocol.evaluation_request import join_pair
from common.protocol.protocol import EvaluateRequest
from common.wire import arrays_digest
from server.report.content import make_content
from simulations.engines.consortium_run import run_in_process

QUIET = Output(json_mode=True)


def finished(study, folder, n=70):
    datasets = tiny_datasets(study, n=n)
    for site in datasets:
        private = folder / "sites" / site / "private"
        private.mkdir(parents=True, exist_ok=True)
        (private / "split.key").write_text(bytes(range(32)).hex())
    agents = {
        site: SiteAgent(tiny_policy(study, site, folder / "sites"), InMemory(data))
        for site, data in datasets.items()
    }
    return run_in_process(study, agents, folder / "run", output=QUIET), agents


def test_noisy_tables_are_never_paired(tmp_path):
    own = {"kind": "epochs", "epochs": 1, "optimizer": "sgd", "lr": 0.1}
    study = tiny_study(
        privacy={"mode": "none", "evaluation": {"release": "dp"}},
        training={"personal": {"kind": "fine_tune", "local": own}},
    )
    result, agents = finished(study, tmp_path, n=40)
    assert result.comparisons == {"personal": {}}
    arrays = join_pair(result.arrays, result.arrays)
    request = EvaluateRequest(
        run_id=result.run_id,
        round=0,
        model_digest=arrays_digest(arrays),
        label="personal_vs_federated",
        phase="paired",
        personal=True,
        arrays=arrays,
    )
    with pytest.raises(ProtocolError) as refused:
        agents["site-a"].evaluate(request)
    assert refused.value.code == ErrorCode.POLICY


def test_a_model_that_does_not_fit_costs_nothing(tmp_path):
    study = tiny_study(privacy={"mode": "none", "evaluation": {"release": "dp"}})
    _, agents = finished(study, tmp_path, n=40)
    ledger = tmp_path / "sites" / "site-a" / "private" / "ledger.jsonl"
    before = ledger.read_bytes()
    arrays = {"heads.nothing": np.zeros(3, np.float32)}
    run_id = next((tmp_path / "sites" / "site-a" / "private" / "state" / "runs").iterdir()).stem
    request = EvaluateRequest(
        run_id=run_id, round=0, model_digest=arrays_digest(arrays), arrays=arrays
    )
    with pytest.raises(ProtocolError):
        agents["site-a"].evaluate(request)
    assert ledger.read_bytes() == before


def test_personal_models_stand_in_the_report_with_a_paired_difference(tmp_path):
    own = {"kind": "epochs", "epochs": 3, "optimizer": "sgd", "lr": 0.1}
    study = tiny_study(
        training={"test_fraction": 0.5, "personal": {"kind": "fine_tune", "local": own}}
    )
    result, _ = finished(study, tmp_path)
    content = make_content(result)
    personal = content.baselines[0]
    assert personal.name == "personal"
    for name in ("c_index", "response_auc"):
        ours = content.metric(f"{name}_within_sites").value
        difference = personal.differences[name].difference
        assert difference.ci_low < difference.value < difference.ci_high
        assert personal.metrics[name].reason == "inside hospitals"
        # pairs weigh the one, patients the other: near, not equal
        assert difference.value == pytest.approx(ours - personal.metrics[name].value, abs=0.05)
