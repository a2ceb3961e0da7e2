"""Content that comes a moment after its message is picked up at once."""

import time

import pytest
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

import client.flower_waits
import server.flower_waits


@pytest.fixture
def flowers_own_waits():
    pulls = inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree
    kept = [dict(pull.__kwdefaults__) for pull in pulls]
    for defaults in kept:
        assert defaults["initial_backoff"] == 1  # else there is nothing left to mend
    yield
    for pull, defaults in zip(pulls, kept, strict=True):
        pull.__kwdefaults__.update(defaults)


@pytest.mark.parametrize(
    "side", [client.flower_waits, server.flower_waits], ids=["client", "server"]
)
def test_late_content_costs_milliseconds(side, flowers_own_waits):
    asked = 0

    def pull(object_id):
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ObjectUnavailableError(object_id)
        return b"there"

    side.shorten_waits()
    started = time.monotonic()
    assert inflatable_utils.pull_objects(["a"], pull) == {"a": b"there"}
    assert time.monotonic() - started < 0.5
    assert asked == 3


@pytest.mark.parametrize(
    "side", [client.flower_waits, server.flower_waits], ids=["client", "server"]
)
def test_the_pauses_grow_but_stay_below_the_longest(side, flowers_own_waits):
    side.shorten_waits()
    defaults = inflatable_utils.pull_objects.__kwdefaults__
    assert defaults["backoff_cap"] == side.LONGEST_S <= 1.0
    assert defaults["max_tries_per_object"] * side.LONGEST_S >= 7200
