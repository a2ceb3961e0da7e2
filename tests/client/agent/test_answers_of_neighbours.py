"""A hospital's answers about neighbouring cohorts differ in nothing but one patient's numbers."""

import numpy as np
import pytest
from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent.site_agent import SiteAgent
from common.contract import canonical_json
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.protocol import EvaluateRequest, HandshakeRequest, TrainRequest
from common.trust.provenance import code_digest
from common.wire import arrays_digest

EVALUATION = {"release": "dp", "subgroup_epsilon": 1.0}
STUDY = tiny_study(
    privacy={"mode": "local", "evaluation": EVALUATION},
    training={"test_fraction": 0.5},
    subgroups={"sex": {"column": "clinical_sex", "levels": {"f": ["f"], "m": ["m"]}}},
)
CHANGING = {"arrays", "ledger_head", "ledger_mark"}
"""A ledger's head covers random identifiers and times of its own."""


def asked(kind, **facts):
    arrays = to_arrays(build_model(STUDY))
    request = kind(run_id="run-1", model_digest=arrays_digest(arrays), **facts)
    return request.model_copy(update={"arrays": arrays})


def answers(patients, folder):
    """Return the handshake, and the answers to a round and to an evaluation."""
    key = folder / "site-a" / "private" / "split.key"
    key.parent.mkdir(parents=True)
    key.write_text("5a" * 32)
    policy = tiny_policy(STUDY, "site-a", folder, split_key_file=key)
    agent = SiteAgent(policy, InMemory(patients))
    hello = HandshakeRequest(
        run_id="run-1",
        study_json=canonical_json(STUDY.model_dump(mode="json")),
        study_digest=STUDY.digest(),
        code_digest=code_digest(),
    )
    return [
        agent.handshake(hello),
        agent.train(asked(TrainRequest, round=1)),
        agent.evaluate(asked(EvaluateRequest, round=0, phase="tables")),
    ]


@pytest.mark.parametrize("gone", range(9))
def test_only_numbers_change(gone, tmp_path, monkeypatch):
    """The ninth patient gone is the only one with radiology."""
    monkeypatch.setattr(
        "common.privacy.integer_encoding.skellam", lambda size, _: np.zeros(size, np.int64)
    )
    monkeypatch.setattr(
        "client.agent.evaluation.geometric_share", lambda shape, *_: np.zeros(shape, np.int64)
    )
    whole = tiny_datasets(STUDY, n=60)["site-a"]
    seen = whole.present("radiology")
    patients = whole.select([*np.flatnonzero(~seen)[:8], np.flatnonzero(seen)[0]])
    rest = patients.select([i for i in range(9) if i != gone])
    pairs = zip(answers(patients, tmp_path / "a"), answers(rest, tmp_path / "b"), strict=True)
    tables = 0
    for whole_said, rest_said in pairs:
        first, second = (said.model_dump(exclude=CHANGING) for said in (whole_said, rest_said))
        assert first == second
        arrays, others = (getattr(said, "arrays", {}) for said in (whole_said, rest_said))
        assert {n: a.shape for n, a in arrays.items()} == {n: a.shape for n, a in others.items()}
        counts = [name for name, array in arrays.items() if array.dtype == np.int64]
        tables += len(counts)
        assert all(np.abs(arrays[name] - others[name]).sum() <= 1 for name in counts)
    assert tables == 4
