"""Content that comes a moment after its message is picked up at once; on Flower's own functions."""

import time

import pytest
from flwr.supercore import constant
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

from common.process.late_content import LONGEST_S, shorten_waits

PULLS = (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree)


@pytest.fixture(autouse=True)
def flowers_own_waits():
    kept = [dict(pull.__kwdefaults__) for pull in PULLS]
    for pull in PULLS:
        pull.__kwdefaults__ = pull.__kwdefaults__ | {
            "initial_backoff": constant.PULL_INITIAL_BACKOFF,
            "backoff_cap": constant.PULL_BACKOFF_CAP,
            "max_tries_per_object": constant.PULL_MAX_TRIES_PER_OBJECT,
        }
    yield
    for pull, defaults in zip(PULLS, kept, strict=True):
        pull.__kwdefaults__ = defaults


def seconds_until_third_look():
    asked = 0

    def pull(object_id):
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ObjectUnavailableError(object_id)
        return b"there"

    started = time.monotonic()
    assert inflatable_utils.pull_objects(["a"], pull) == {"a": b"there"}
    assert asked == 3
    return time.monotonic() - started


def test_late_content_costs_milliseconds():
    shorten_waits(*PULLS)
    assert seconds_until_third_look() < 0.5


def test_flower_itself_would_wait_for_seconds():
    """Else there is nothing left to mend, and the module can go."""
    assert constant.PULL_INITIAL_BACKOFF >= 1


def test_the_pauses_grow_but_flowers_patience_stays():
    shorten_waits(*PULLS)
    for pull in PULLS:
        defaults = pull.__kwdefaults__
        assert defaults["backoff_cap"] == LONGEST_S <= constant.PULL_BACKOFF_CAP
        patience = defaults["max_tries_per_object"] * LONGEST_S
        assert patience >= defaults["max_time"] == constant.PULL_MAX_TIME


def test_a_function_of_another_shape_is_noticed():
    def renamed(*, first_backoff=1.0):
        return first_backoff

    with pytest.raises(TypeError, match="renamed has no default for"):
        shorten_waits(renamed)
