import numpy as np
import pandas as pd
import pytest

from common.errors import ConfigError
from common.study.study import FeatureSpec
from simulations.cohorts.cohort import Cohort
from simulations.engines.circumstances import (
    Circumstances,
    Poison,
    as_recorded,
    as_trained,
    poisoned_site,
    silent_sites,
)
from simulations.engines.unreliable_site import poisoned
from simulations.scenario.scenario import Arm

SIZES = {"a": 40, "b": 20, "c": 60, "d": 30}


def cohort():
    rng = np.random.default_rng(0)
    hospital = np.concatenate([[name] * n for name, n in SIZES.items()])
    n = len(hospital)
    return Cohort(
        name="made",
        patient_ids=[f"p{i}" for i in range(n)],
        hospital=hospital,
        specs={name: FeatureSpec(modality="clinical", dim=3) for name in ("x", "y")},
        features={
            name: [rng.normal(size=(1, 3)).astype(np.float32) for _ in range(n)]
            for name in ("x", "y")
        },
        response=np.full(n, np.nan),
        time_months=rng.exponential(20, n),
        event=rng.integers(0, 2, n).astype(float),
        clinical=pd.DataFrame(index=range(n)),
    )


def groups(made):
    return {s: made.take(np.flatnonzero(made.hospital == s)) for s in SIZES}


def test_silence_is_repeatable_has_its_share_and_leaves_somebody():
    told = [silent_sites("abcdef", 0.3, seed=1, round=r, what="dropout") for r in range(2000)]
    assert told[:50] == [
        silent_sites("abcdef", 0.3, seed=1, round=r, what="dropout") for r in range(50)
    ]
    assert np.mean([len(silent) for silent in told]) / 6 == pytest.approx(0.3, abs=0.02)
    assert all(
        len(silent_sites("ab", 0.99, seed=1, round=r, what="straggle")) == 1 for r in range(200)
    )


def test_lacking_hospitals_have_nothing_of_a_feature_set_and_the_others_all():
    made = cohort()
    found = as_recorded(made, Circumstances(lacking={"x": 0.5}), 3)
    has = pd.Series([bag is not None for bag in found.features["x"]]).groupby(found.hospital).mean()
    assert sorted(has) == [0, 0, 1, 1]
    assert all(bag is not None for bag in found.features["y"])


def test_scanner_shift_moves_every_hospital_as_a_whole():
    made = cohort()
    found = as_recorded(made, Circumstances(scanner_shift=2.0), 3)
    moved = np.concatenate(found.features["x"]) - np.concatenate(made.features["x"])
    for site in SIZES:
        assert np.ptp(moved[made.hospital == site], axis=0).max() < 1e-5
    assert np.std([moved[made.hospital == s].mean(0) for s in SIZES]) > 0.5


def test_label_shift_thins_opposite_outcomes_at_neighbours():
    before = groups(cohort())
    after = as_trained(before, Circumstances(label_shift=0.9), 3)
    rate = {s: after[s].event.mean() for s in SIZES}
    assert min(rate["a"], rate["c"]) > 0.75 > 0.25 > max(rate["b"], rate["d"])


def test_wrong_labels_keep_the_outcomes_of_the_hospital_and_break_their_order():
    before = groups(cohort())
    poison = Poison(kind="labels", site="largest")
    after = as_trained(before, Circumstances(poison=poison), 3)
    assert poisoned_site(before, poison) == "c"
    assert sorted(after["c"].time_months) == sorted(before["c"].time_months)
    both = np.corrcoef(after["c"].time_months.argsort().argsort(), before["c"].time_months)
    assert both[0, 1] < -0.7
    assert after["a"] is before["a"]


def test_poisoned_updates_by_hand():
    update = {"heads.w": np.array([1.0, -2.0], np.float32)}
    assert poisoned(update, Poison(kind="scale", factor=3))["heads.w"].tolist() == [3, -6]
    assert poisoned(update, Poison(kind="sign_flip", factor=5))["heads.w"].tolist() == [-5, 10]
    assert np.isnan(poisoned(update, Poison(kind="nan"))["heads.w"]).all()
    assert poisoned(update, Poison(kind="labels")) is update


def test_pooled_arm_cannot_have_absent_sites():
    with pytest.raises(ConfigError, match="kind: federated"):
        Arm.from_mapping(
            {"name": "x", "kind": "pooled", "circumstances": {"dropout": 0.2}}, where="test"
        )
