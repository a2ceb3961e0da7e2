"""The split is permanent, keyed, and fair."""

import hashlib
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.dataset import PatientDataset
from client.data.split import is_held_out, load_or_create_split_key, sides
from common.errors import ConfigError
from common.study.study import Study

KEY = bytes(range(32))


def test_it_is_hmac_sha256() -> None:
    for i in range(50):
        digest = hmac.new(KEY, f"p{i}".encode(), hashlib.sha256).hexdigest()
        assert is_held_out(f"p{i}", KEY, 0.25) == (int(digest[:2], 16) < 64)


@given(patient=st.text(), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_larger_fraction_only_adds(patient: str, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    assert is_held_out(patient, KEY, low) <= is_held_out(patient, KEY, high)
    assert not is_held_out(patient, KEY, 0.0)
    assert is_held_out(patient, KEY, 1.0)


def test_share_and_independence_of_keys() -> None:
    ids = [f"TCGA-{i:05d}" for i in range(8000)]
    sides = np.array([[is_held_out(p, key, 0.25) for p in ids] for key in (KEY, b"\x01" * 32)])
    assert np.abs(sides.mean(axis=1) - 0.25).max() < 0.02  # sd 0.0048
    assert abs((sides[0] & sides[1]).mean() - 0.0625) < 0.015


def test_split_is_a_partition_that_ignores_order() -> None:
    study = Study.model_validate(
        {
            "study_id": "s",
            "endpoints": {"response": {"positive": "pCR"}},
            "features": {"table": {"modality": "clinical", "dim": 1}},
            "privacy": {"mode": "none"},
            "quorum": {"min_sites": 1},
            "sites": [{"site_id": "a"}],
        }
    )
    ids = [f"p{i}" for i in range(40)]
    nan = [float("nan")] * 40
    dataset = PatientDataset.from_arrays(study, ids, {}, [i % 2 for i in range(40)], nan, nan)
    train, held = (dataset.select(side) for side in sides(ids, KEY, 0.3))
    assert sorted(train.patient_ids + held.patient_ids) == sorted(ids)
    assert held.patient_ids == [p for p in ids if is_held_out(p, KEY, 0.3)]
    assert train.response.tolist() == [int(p[1:]) % 2 for p in train.patient_ids]
    again = sides(ids[::-1], KEY, 0.3)[1]
    assert {ids[::-1][index] for index in again} == set(held.patient_ids)


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "private" / "split.key"
    key = load_or_create_split_key(path)
    assert len(key) == 32
    assert load_or_create_split_key(path) == key
    assert load_or_create_split_key(tmp_path / "other.key") != key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    load_or_create_split_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["split.key"]


def test_simultaneous_starts_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for attempt in range(20):
            path = tmp_path / f"{attempt}.key"
            assert len(set(pool.map(load_or_create_split_key, [path] * 4))) == 1


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "ab" * 16])
def test_a_damaged_key_is_never_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.key"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be used"):
        load_or_create_split_key(path)
    assert path.read_text() == text
