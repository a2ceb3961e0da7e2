"""Named arrays: what leaves a model comes back, anything else is refused."""

import numpy as np
import pytest
from random_patients import make_study, random_model

from common.errors import ErrorCode, ProtocolError
from common.models.base.build import build_model
from common.models.base.parameters import block_of, expected_shapes, load_arrays, to_arrays

STUDY = make_study("moemil", size="small")


def test_arrays_make_the_same_model():
    first, second = random_model(STUDY, 1), build_model(STUDY)
    arrays = to_arrays(first)
    load_arrays(second, arrays)
    assert {name: a.shape for name, a in arrays.items()} == expected_shapes(second)
    for name, array in to_arrays(second).items():
        assert array.dtype == np.float32
        assert np.array_equal(array, arrays[name])


def test_arrays_are_copies():
    model = build_model(STUDY)
    arrays = to_arrays(model)
    for array in arrays.values():
        array += 1
    assert not np.array_equal(
        to_arrays(model)["heads.response.2.bias"], arrays["heads.response.2.bias"]
    )


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda a: a.pop("heads.response.2.bias"), ErrorCode.PAYLOAD),
        (lambda a: a.update(extra=np.zeros(1)), ErrorCode.PAYLOAD),
        (lambda a: a.update({"heads.response.2.bias": np.zeros((1, 1))}), ErrorCode.PAYLOAD),
        (lambda a: a.update({"heads.response.2.bias": np.zeros(1, int)}), ErrorCode.PAYLOAD),
        (lambda a: a.update({"heads.response.2.bias": np.array([np.nan])}), ErrorCode.NOT_FINITE),
        (lambda a: a.update({"heads.response.2.bias": np.array([1e300])}), ErrorCode.NOT_FINITE),
    ],
)
def test_wrong_arrays_are_refused_and_nothing_is_copied(spoil, code):
    model, arrays = build_model(STUDY), to_arrays(random_model(STUDY, 1))
    before = to_arrays(model)
    spoil(arrays)
    with pytest.raises(ProtocolError) as caught:
        load_arrays(model, arrays)
    assert caught.value.code is code
    assert all(np.array_equal(before[name], array) for name, array in to_arrays(model).items())


def test_a_parameter_outside_all_blocks_is_refused():
    with pytest.raises(ProtocolError, match="belongs to no block"):
        block_of("trunk.weight")
