"""Two models compared on the same patients through real agents, from joint tables alone."""

import numpy as np
import pytest
from other_model import compare_with_model, evaluate_model
from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent.site_agent import SiteAgent
from common.commands.cli_output import Output
from common.errors import ErrorCode, ProtocolError
from common.ledger.ledger_file import read_ledger
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.evaluation_request import join_pair
from common.protocol.protocol import EvaluateRequest
from common.wire import arrays_digest
from server.report.content import make_content
from server.run.rounds import FEDERATED
from simulations.engines.consortium_run import local_link, run_in_process
from simulations.engines.memory_sites import with_identities

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


def other_model(study):
    """Random heads: an untrained head says the same of everybody."""
    rng = np.random.default_rng(0)
    arrays = to_arrays(build_model(study))
    return {name: (a + 0.3 * rng.normal(size=a.shape)).astype("f4") for name, a in arrays.items()}


class Nobody:
    def site_ids(self):
        return ()

    def exchange(self, *_args, **_options):
        raise AssertionError("what was stored is asked for again")


@pytest.mark.parametrize("mode", ["none", "distributed"])
def test_the_difference_is_that_of_both_models_tables_with_a_paired_interval(mode, tmp_path):
    study = tiny_study(
        privacy={"mode": mode, "epsilon": 8.0, "evaluation": {"release": "internal"}},
        training={"test_fraction": 0.5},
    )
    if mode == "distributed":
        study = with_identities(study, tmp_path / "sites")
    result, agents = finished(study, tmp_path)
    link, other = local_link(study, agents), other_model(study)
    found = compare_with_model(study, link, tmp_path / "run", other, "other", output=QUIET)
    ours = result.evaluations[FEDERATED].summary().metrics
    theirs = evaluate_model(study, Nobody(), tmp_path / "run", other, "other", output=QUIET)
    for name, comparison in found.items():
        told = ours[name].value - theirs.summary().metrics[name].value
        assert comparison.difference.value == pytest.approx(told, abs=1e-12)
        assert comparison.difference.ci_low < told < comparison.difference.ci_high
    assert set(found) == {"c_index", "response_auc"}
    again = compare_with_model(study, Nobody(), tmp_path / "run", other, "other", output=QUIET)
    assert again == found
    ledger = read_ledger(tmp_path / "sites" / "site-a" / "private" / "ledger.jsonl")
    purposes = {r.entry.purpose: r.entry.mechanism for r in ledger if r.entry}
    assert purposes["evaluate federated_vs_other paired"] == "none"


def test_noisy_tables_are_never_paired(tmp_path):
    study = tiny_study(privacy={"mode": "none", "evaluation": {"release": "dp"}})
    _, agents = finished(study, tmp_path, n=40)
    link, other = local_link(study, agents), other_model(study)
    assert compare_with_model(study, link, tmp_path / "run", other, "other", output=QUIET) == {}
    arrays = join_pair(other, other)
    request = EvaluateRequest(
        run_id="r", round=0, model_digest=arrays_digest(arrays), phase="paired", arrays=arrays
    )
    run_id = next((tmp_path / "sites" / "site-a" / "private" / "state" / "runs").iterdir()).stem
    with pytest.raises(ProtocolError, match="only be sent exactly") as refused:
        agents["site-a"].evaluate(request.model_copy(update={"run_id": run_id}))
    assert refused.value.code == ErrorCode.POLICY


def test_a_model_that_does_not_fit_costs_nothing(tmp_path):
    study = tiny_study(privacy={"mode": "none", "evaluation": {"release": "dp"}})
    _, agents = finished(study, tmp_path, n=40)
    ledger = tmp_path / "sites" / "site-a" / "private" / "ledger.jsonl"
    before = ledger.read_bytes()
    arrays = {"heads.nothing": np.zeros(3, np.float32)}
    run_id = next((tmp_path / "sites" / "site-a" / "private" / "state" / "runs").iterdir()).stem
    request = EvaluateRequest(
        run_id=run_id, round=0, model_digest=arrays_digest(arrays), label="odd", arrays=arrays
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
