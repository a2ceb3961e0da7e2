"""Least squares over random groups tells which hospital pulls, and blames no honest one."""

import numpy as np
import pytest
from tiny_consortium import tiny_study

from common.study.private_round import encoding_of
from server.aggregate.contribution import Contribution
from server.aggregate.group_history import remembered, suspects
from server.aggregate.method import aggregate

NAMES = [f"site-{i:02d}" for i in range(12)]
SHAPES = {"heads.w": (7, 5)}
PATIENTS = 50


def study_of(epsilon, rule="mean"):
    return tiny_study(
        sites=[{"site_id": name, "nominal_patients": PATIENTS} for name in NAMES],
        privacy={"mode": "distributed", "epsilon": epsilon, "groups": 3},
        training={"rounds": 60, "nominal_patients": 600, "aggregation": {"rule": rule}},
    )


class Federation:
    """Twelve hospitals whose gradients differ, in random groups of four.

    A hospital's sum is a fifth of what clipping allows in a direction common to all, and half as
    much in one of its own.
    """

    def __init__(self, study, seed):
        self.study, self.dice = study, np.random.default_rng(seed)
        self.encoding = encoding_of(study, SHAPES)
        held = study.privacy.clip * PATIENTS
        self.common = self.unit() * 0.2 * held
        self.own = {name: self.common + self.unit() * 0.1 * held for name in NAMES}

    def unit(self):
        vector = self.dice.normal(size=self.encoding.dimension)
        return vector / np.linalg.norm(vector)

    def sums(self, lie=None):
        """Return one round's opened sums; `lie` replaces what the first hospital adds."""
        order, contributions = self.dice.permutation(NAMES), []
        for place in range(3):
            members = tuple(sorted(map(str, order[place::3])))
            total = sum(self.own[n] if lie is None or n != NAMES[0] else lie for n in members)
            total = total + self.dice.normal(size=len(total)) * self.encoding.noise_sd(4)
            arrays = {"heads.w": total.reshape(SHAPES["heads.w"])}
            contributions.append(Contribution(f"group-{place}", arrays, members=members))
        return contributions


@pytest.mark.parametrize("epsilon", [3.0, 500.0])
def test_no_honest_hospital_is_named(epsilon):
    study = study_of(epsilon)
    for seed in range(20):
        federation, memory = Federation(study, seed), {}
        for _ in range(60):
            memory = remembered(study, federation.sums(), memory, SHAPES)
            assert suspects(study, memory, SHAPES) == []


@pytest.mark.parametrize(
    ("epsilon", "length", "rounds"), [(3.0, 4.0, 8), (3.0, 1.0, 30), (500.0, 1.0, 8)]
)
def test_a_liar_is_named_the_sooner_the_louder(epsilon, length, rounds):
    """Length 4: as long as its group may be; 1: as long as its own patients could be."""
    study = study_of(epsilon)
    for seed in range(10):
        federation, memory = Federation(study, seed), {}
        lie = -federation.common / np.linalg.norm(federation.common)
        lie *= length * study.privacy.clip * PATIENTS
        for _ in range(rounds):
            memory = remembered(study, federation.sums(lie), memory, SHAPES)
        assert suspects(study, memory, SHAPES) == [NAMES[0]]


@pytest.mark.parametrize("rule", ["mean", "median", "centred_clipping"])
def test_sums_with_the_liar_are_left_out(rule):
    study = study_of(500.0, rule)
    federation, memory, facts = Federation(study, 1), {}, {}
    lie = -5 * federation.common
    parameters = {"heads.w": np.zeros(SHAPES["heads.w"], np.float32)}
    for _ in range(12):
        result = aggregate(study, parameters, federation.sums(lie), memory)
        memory, facts = result.memory, result.facts
    assert facts == {"steering": [NAMES[0]]}
    honest = np.mean([federation.own[name] for name in NAMES[1:]], axis=0) / PATIENTS
    np.testing.assert_allclose(-result.direction["heads.w"].ravel(), honest, atol=0.02)
