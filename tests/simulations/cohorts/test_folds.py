import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DataError
from simulations.cohorts.cohort import Cohort, group_small_hospitals
from simulations.cohorts.folds import whole_hospital, within_hospital


def cohort(hospitals, events, responses=None):
    n = len(hospitals)
    return Cohort(
        name="test",
        patient_ids=[f"p{i}" for i in range(n)],
        hospital=np.array(hospitals, dtype=np.str_),
        specs={},
        features={},
        response=np.full(n, np.nan) if responses is None else np.array(responses, float),
        time_months=np.ones(n),
        event=np.array(events, dtype=float),
        clinical=pd.DataFrame(index=range(n)),
    )


sizes = st.lists(st.integers(1, 60), min_size=1, max_size=8)


@given(sizes=sizes, count=st.integers(2, 6), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_within_hospital_keeps_sizes_and_events_even(sizes, count, seed):
    generator = np.random.default_rng(seed)
    hospitals = [f"h{i}" for i, n in enumerate(sizes) for _ in range(n)]
    made = cohort(hospitals, generator.integers(0, 2, len(hospitals)))
    fold = within_hospital(made, count, seed)
    for hospital in set(hospitals):
        here = made.hospital == np.str_(hospital)
        per_fold = np.bincount(fold[here], minlength=count)
        assert per_fold.max() - per_fold.min() <= 1
        deaths = np.bincount(fold[here & (made.event == 1)], minlength=count)
        assert deaths.max() - deaths.min() <= 1


@given(sizes=st.lists(st.integers(1, 60), min_size=5, max_size=12), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_whole_hospital_never_splits_a_hospital(sizes, seed):
    hospitals = [f"h{i}" for i, n in enumerate(sizes) for _ in range(n)]
    made = cohort(hospitals, [0] * len(hospitals))
    fold = whole_hospital(made, 5, seed)
    for hospital in set(hospitals):
        assert len(set(fold[made.hospital == np.str_(hospital)])) == 1
    load = np.bincount(fold, minlength=5)
    assert load.min() > 0
    assert load.max() - load.min() <= max(sizes)


def test_folds_repeat_by_seed_and_differ_between_seeds():
    made = cohort(["a"] * 40 + ["b"] * 40, [0, 1] * 40)
    assert (within_hospital(made, 5, 3) == within_hospital(made, 5, 3)).all()
    assert (within_hospital(made, 5, 3) != within_hospital(made, 5, 4)).any()


def test_small_hospitals_are_pooled_placed_by_region_or_held_out():
    hospital = np.array(["a"] * 30 + ["b"] * 5 + ["c"] * 25 + ["d"] * 21 + ["e"] * 2)
    pooled = group_small_hospitals(hospital, minimum=20, rest="pool")
    assert set(pooled) == {"a", "c", "d", "rest"}
    assert (pooled == "rest").sum() == 7
    held = group_small_hospitals(hospital, minimum=20, rest="hold_out")
    assert (held == "").sum() == 7
    by_region = group_small_hospitals(
        np.array(["a"] * 30 + ["b"] * 15 + ["e"] * 15),
        minimum=20,
        rest="region",
        region={"b": "west", "e": "west"},
    )
    assert (by_region == "region_west").sum() == 30
    with pytest.raises(DataError, match="unknown rule"):
        group_small_hospitals(hospital, minimum=20, rest="drop")
