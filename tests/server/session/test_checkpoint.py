"""Checkpoints come back bit by bit, are refused when damaged, and average the last iterates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_consortium import tiny_study

from common.errors import RunError
from server.aggregate.optimizers import OptimizerState
from server.session.checkpoint import (
    Checkpoint,
    RoundRecord,
    advance,
    final_model,
    load_checkpoint,
    save_checkpoint,
)

floats = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4))


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(["heads.w", "heads.b", "pathology.a.w"]), floats))
def test_round_trip(tmp_path_factory, parameters):
    folder = tmp_path_factory.mktemp("run")
    wide = {name: a.astype(np.float64) for name, a in parameters.items()}
    state = OptimizerState(first=wide, second=wide, steps=dict.fromkeys(wide, 7))
    record = RoundRecord(round=3, sites=["a"], update_norm=0.5, loss=1.25)
    saved = Checkpoint(3, parameters, state, wide, 2, [record])
    save_checkpoint(folder, saved)
    loaded = load_checkpoint(folder)
    assert loaded.history == [record]
    assert (loaded.round, loaded.averaged, loaded.optimizer.steps) == (3, 2, state.steps)
    for name, array in parameters.items():
        assert loaded.parameters[name].tobytes() == array.tobytes()
        assert loaded.parameters[name].shape == array.shape
        assert loaded.average[name].tobytes() == wide[name].tobytes()
        assert loaded.optimizer.second[name].tobytes() == wide[name].tobytes()


def checkpoint(number):
    return Checkpoint(number, {"heads.w": np.full((2, 2), number, np.float32)})


def test_last_two_rounds_are_kept(tmp_path):
    for number in range(5):
        save_checkpoint(tmp_path, checkpoint(number))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"round_{n:06d}.{kind}" for n in (3, 4) for kind in ("json", "safetensors")]
    assert load_checkpoint(tmp_path).round == 4


def test_arrays_without_their_record_are_not_a_commit(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2))
    (tmp_path / "round_000002.json").unlink()
    assert load_checkpoint(tmp_path).round == 1


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_damage_is_noticed(suffix, tmp_path):
    save_checkpoint(tmp_path, checkpoint(1))
    path = tmp_path / f"round_000001.{suffix}"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("share", "rounds", "expected"),
    [(0.5, 10, np.mean([6, 7, 8, 9, 10])), (0.0, 10, 10), (1.0, 4, 2.5), (0.4, 5, 4.5)],
)
def test_final_model_is_the_mean_of_the_last_iterates(share, rounds, expected):
    server = {"name": "average"}
    study = tiny_study(training={"rounds": rounds, "average_last": share, "server": server})
    current = checkpoint(0)
    for number in range(1, rounds + 1):
        record = RoundRecord(round=number, sites=[], update_norm=0.0)
        current = advance(study, current, {"heads.w": np.ones((2, 2))}, record)
        assert current.history[-1].update_norm == pytest.approx(2.0)
    assert final_model(current)["heads.w"][0, 0] == pytest.approx(expected)
