"""A site that sends nonsense is dropped with its code, and the run goes on without it."""

import numpy as np
import pytest
from tiny_consortium import tiny_agents, tiny_study

from common.commands.cli_output import Output
from common.errors import ErrorCode, RunError
from common.protocol.evaluation_request import FEDERATED
from simulations.engines.consortium_run import run_in_process


class Hostile:
    """An agent whose replies are tampered with on their way."""

    def __init__(self, agent, *, train=None, evaluate=None):
        self._agent, self._train, self._evaluate = agent, train, evaluate

    def handshake(self, request):
        return self._agent.handshake(request)

    def status(self, request):
        return self._agent.status(request)

    def train(self, request):
        reply = self._agent.train(request)
        return self._train(reply) if self._train else reply

    def evaluate(self, request):
        reply = self._agent.evaluate(request)
        return self._evaluate(reply) if self._evaluate else reply


def with_arrays(change):
    def tamper(reply):
        arrays = {n: change(a.copy()) for n, a in reply.arrays.items()}
        return reply.model_copy(update={"arrays": arrays})

    return tamper


def raising(reply):
    raise RuntimeError("patient Erika Mustermann, born 1969")


def poison(array):
    array.flat[0] = np.nan
    return array


TRAIN = {
    "NaN": (with_arrays(poison), ErrorCode.NOT_FINITE),
    "wrong shape": (with_arrays(lambda a: a[..., None]), ErrorCode.PAYLOAD),
    "norm 1e9": (with_arrays(lambda a: a + np.float32(1e9)), ErrorCode.PAYLOAD),
    "identity of another site": (
        lambda reply: reply.model_copy(update={"site_id": "site-a"}),
        ErrorCode.PROTOCOL,
    ),
    "reply to another round": (
        lambda reply: reply.model_copy(update={"round": reply.round + 1}),
        ErrorCode.PROTOCOL,
    ),
    "exception that names a patient": (raising, ErrorCode.INTERNAL),
    "reply of another type": (lambda reply: "hello", ErrorCode.INTERNAL),
}


def run(study, agents, folder, output=None):
    output = output or Output(json_mode=True)
    return run_in_process(study, agents, folder / "run", output=output)


@pytest.mark.parametrize("kind", TRAIN)
def test_tampered_update_is_dropped_and_the_run_ends_without_it(kind, tmp_path, capsys):
    tamper, code = TRAIN[kind]
    study = tiny_study(training={"rounds": 2})
    agents = dict(tiny_agents(study, tmp_path / "sites"))
    agents["site-b"] = Hostile(agents["site-b"], train=tamper)
    result = run(study, agents, tmp_path, Output())
    for record in result.history:
        assert record.sites == ["site-a", "site-c"]
        assert record.dropped == {"site-b": code}
    assert all(np.isfinite(array).all() for array in result.arrays.values())
    told = "".join(capsys.readouterr()) + (tmp_path / "run" / "run.json").read_text()
    assert "Mustermann" not in told


EVALUATE = {
    "negative counts": (with_arrays(lambda a: a - 1000), ErrorCode.PAYLOAD),
    "floats": (with_arrays(lambda a: a.astype(np.float64)), ErrorCode.PAYLOAD),
    "missing table": (
        lambda reply: reply.model_copy(update={"arrays": {}}),
        ErrorCode.PAYLOAD,
    ),
    "another model": (
        lambda reply: reply.model_copy(update={"label": "pooled"}),
        ErrorCode.PROTOCOL,
    ),
}


@pytest.mark.parametrize("kind", EVALUATE)
def test_tampered_tables_are_left_out(kind, tmp_path):
    tamper, code = EVALUATE[kind]
    study = tiny_study(training={"rounds": 1})
    agents = dict(tiny_agents(study, tmp_path / "sites"))
    agents["site-b"] = Hostile(agents["site-b"], evaluate=tamper)
    evaluation = run(study, agents, tmp_path).evaluations[FEDERATED]
    assert sorted(evaluation.tables) == ["site-a", "site-c"]
    assert evaluation.refusals == {"site-b": code}


def test_round_without_quorum_is_void_and_the_run_fails_after_bounded_retries(tmp_path):
    study = tiny_study()
    agents = dict(tiny_agents(study, tmp_path / "sites"))
    honest = dict(agents)
    for site_id in ("site-a", "site-b"):
        agents[site_id] = Hostile(agents[site_id], train=raising)
    with pytest.raises(RunError) as caught:
        run(study, agents, tmp_path)
    assert caught.value.code == ErrorCode.QUORUM
    assert "site-a: TB900, site-b: TB900" in caught.value.why
    result = run(study, honest, tmp_path)  # the sites were mended: the same folder goes on
    assert len(result.history) == 4


def test_site_that_fails_once_comes_back(tmp_path):
    study = tiny_study()
    agents = dict(tiny_agents(study, tmp_path / "sites"))
    calls = []

    def fails_in_round_two(reply):
        calls.append(reply.round)
        if reply.round == 2:
            raise OSError("disk full")
        return reply

    agents["site-b"] = Hostile(agents["site-b"], train=fails_in_round_two)
    history = run(study, agents, tmp_path).history
    assert calls == [1, 2, 3, 4]
    assert [len(record.sites) for record in history] == [3, 2, 3, 3]
    assert history[1].dropped == {"site-b": ErrorCode.INTERNAL}


def test_site_that_lost_its_run_is_enrolled_again(tmp_path):
    study = tiny_study()
    agents = dict(tiny_agents(study, tmp_path / "sites"))
    record = tmp_path / "sites" / "site-b" / "private" / "state" / "runs"

    def forget(reply):
        if reply.round == 1:
            for path in record.iterdir():
                path.unlink()
            agents["site-b"]._agent._run.close()
        return reply

    agents["site-b"] = Hostile(agents["site-b"], train=forget)
    history = run(study, agents, tmp_path).history
    assert [len(entry.sites) for entry in history] == [3, 2, 3, 3]
