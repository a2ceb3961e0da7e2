"""A study's random groups: refused where they cannot work, promised as what they are."""

import math

import pytest
from tiny_consortium import tiny_study

from common.errors import ConfigError
from common.privacy.accounting import fallback_epsilon, training_sigma
from common.study.private_round import (
    collusion_of,
    encoding_of,
    promise_in_words,
    training_collusion_of,
)


def study_of(n_sites, groups, **privacy):
    sites = [{"site_id": f"site-{i:02d}"} for i in range(n_sites)]
    plan = {"mode": "distributed", "epsilon": 3.0, "groups": groups, **privacy}
    return tiny_study(sites=sites, privacy=plan)


REFUSED = {
    "more hospitals than there are": (11, 4, {}, "4 groups of at least 3 sites need 12"),
    "n_min above a group": (12, 4, {"n_min": 4}, "4 groups of at least 4 sites need 16"),
    "n_min below the threshold": (12, 3, {"n_min": 2}, "n_min = 2 does not work for 4 sites"),
    "two groups": (12, 2, {}, "at least 3 groups"),
    "no secure sum": (12, 3, {"mode": "local"}, "need mode 'distributed'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_groups_that_cannot_work_are_refused(name):
    n_sites, groups, privacy, words = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        study_of(n_sites, groups, **privacy)
    assert words in str(caught.value)


def test_a_study_without_groups_keeps_its_digest():
    assert "groups" not in study_of(12, 1).privacy.model_dump()
    assert study_of(12, 3).digest() != study_of(12, 1).digest()


def test_rules_that_see_each_update_work_with_groups_alone():
    aggregation = {"rounds": 2, "aggregation": {"rule": "median"}}
    plan = {"mode": "distributed", "groups": 3}
    sites = [{"site_id": f"site-{i}"} for i in range(9)]
    assert tiny_study(sites=sites, privacy=plan, training=aggregation).privacy.groups == 3
    with pytest.raises(ConfigError, match=r"privacy\.groups"):
        tiny_study(sites=sites, privacy={"mode": "distributed"}, training=aggregation)


def test_every_group_carries_the_whole_noise_and_the_promise_counts_a_group():
    study = study_of(12, 4)
    numbers = training_collusion_of(study)
    assert (numbers.n_sites, numbers.colluders, numbers.n_min, numbers.shares) == (3, 1, 3, 2)
    assert collusion_of(study).n_min == 10  # tables are one sum of all
    encoding = encoding_of(study, {"w": (40,)})
    rounds = study.training.rounds
    # after one colluder of three has taken its share away, a group's noise is sigma C or more
    honest = 2 * encoding.share_variance
    sigma = math.sqrt(honest) / encoding.sensitivity
    assert sigma >= training_sigma(3.0, study.privacy.delta, rounds)
    assert encoding.mu_squared == pytest.approx(
        encoding_of(study_of(12, 1), {"w": (40,)}).mu_squared
    )
    words = promise_in_words(study)
    assert "t = 1 colluding" in words
    assert "no sum of fewer than 3 is opened, in 4 random groups a round" in words
    alone = fallback_epsilon(3.0, study.privacy.delta, 2)
    assert f"epsilon {alone:.3g} if" in words
