"""Feature files: exact, whole, and those of CLAM, TRIDENT and STAMP as they are."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.cohort.features_h5 import (
    FINGERPRINT,
    FeatureFile,
    feature_path,
    read_features,
    read_header,
    write_features,
)
from common.errors import ErrorCode, FeatureError

RNG = np.random.default_rng(0)


def bag(t: int = 3, d: int = 4) -> np.ndarray:
    return RNG.normal(size=(t, d)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    features=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 5)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    attr=st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00")), st.integers(-9, 9)
    ),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, features: np.ndarray, attr: str | int
) -> None:
    path = tmp_path_factory.mktemp("h5") / "deep" / "p.h5"
    coords = np.arange(2 * len(features)).reshape(-1, 2) + 2**40
    write_features(path, FeatureFile(features, coords, {FINGERPRINT: "ab", "note": attr}))
    read = read_features(path)
    assert read.features.dtype == np.float32
    np.testing.assert_array_equal(read.features, features)
    np.testing.assert_array_equal(read.coords, coords)
    assert (read.fingerprint, read.attrs["note"]) == ("ab", attr)
    assert read_header(path) == (features.shape, read.attrs)


def test_same_bag_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    file = FeatureFile(bag(), None, {"b": 1, "a": 2.5})
    write_features(one, file)
    write_features(two, FeatureFile(file.features, None, {"a": 2.5, "b": 1}))
    assert one.read_bytes() == two.read_bytes()


def test_units_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.h5"
    write_features(path, FeatureFile(bag(), np.zeros((3, 2), np.int64), {"tile_um": 112.0}))
    with h5py.File(path) as handle:
        assert handle["coords"].attrs["unit"] == "level-0 px"
        assert handle.attrs["tile_um"] == 112.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused_both_ways(tmp_path: Path, value: float) -> None:
    features = bag()
    features[1, 2] = value
    with pytest.raises(FeatureError) as caught:
        write_features(tmp_path / "w.h5", FeatureFile(features))
    assert caught.value.code == ErrorCode.FEATURE_NOT_FINITE
    assert "token 1, column 2" in caught.value.where
    assert list(tmp_path.iterdir()) == []
    with h5py.File(tmp_path / "r.h5", "w") as handle:
        handle["features"] = features
    with pytest.raises(FeatureError) as caught:
        read_features(tmp_path / "r.h5")
    assert caught.value.code == ErrorCode.FEATURE_NOT_FINITE


def test_float64_that_overflows_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "p.h5", "w") as handle:
        handle["features"] = np.array([[1e300]])
    with pytest.raises(FeatureError, match="too large"):
        read_features(tmp_path / "p.h5")


@pytest.mark.parametrize(
    "features",
    [np.zeros(4), np.zeros((0, 4)), np.zeros((3, 0)), np.zeros((2, 3, 4)), np.array([["a"]], "S1")],
)
def test_wrong_dimensions_are_refused(tmp_path: Path, features: np.ndarray) -> None:
    with h5py.File(tmp_path / "p.h5", "w") as handle:
        handle["features"] = features
    with pytest.raises(FeatureError, match="not a bag of tokens"):
        read_features(tmp_path / "p.h5")


@pytest.mark.parametrize("coords", [np.zeros((2, 2)), np.zeros((3, 3)), np.full((3, 2), np.nan)])
def test_coords_must_fit(tmp_path: Path, coords: np.ndarray) -> None:
    with pytest.raises(FeatureError, match="coordinates do not fit"):
        write_features(tmp_path / "p.h5", FeatureFile(bag(), coords))


def test_missing_truncated_changed_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="does not exist"):
        read_features(tmp_path / "none.h5")
    path = tmp_path / "p.h5"
    write_features(path, FeatureFile(bag(40, 50)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for read in (read_features, read_header):
        with pytest.raises(FeatureError, match="damaged"):
            read(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # one bit inside the values
    path.write_bytes(bytes(flipped))
    with pytest.raises(FeatureError, match="damaged"):
        read_features(path)
    path.write_text("patient_id,age\n")
    with pytest.raises(FeatureError, match="damaged"):
        read_features(path)
    with h5py.File(path, "w") as handle:
        handle["coords"] = np.zeros((3, 2))
    with pytest.raises(FeatureError, match="holds no features"):
        read_features(path)


def test_clam_layout(tmp_path: Path) -> None:
    features, coords = bag(5, 8), RNG.integers(0, 9999, (5, 2))
    with h5py.File(tmp_path / "clam.h5", "w") as handle:
        handle.create_dataset("features", data=features, maxshape=(None, 8), chunks=(1, 8))
        handle.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(1, 2))
        handle["coords"].attrs["patch_size"] = 256
        handle["coords"].attrs["downsample"] = np.array([1.0, 1.0])
    read = read_features(tmp_path / "clam.h5")
    np.testing.assert_array_equal(read.features, features)
    np.testing.assert_array_equal(read.coords, coords)
    assert read.attrs["patch_size"] == 256
    assert read.fingerprint is None


@pytest.mark.parametrize("extra_axis", [False, True])
def test_trident_layout(tmp_path: Path, extra_axis: bool) -> None:
    features, coords = bag(5, 8), RNG.integers(0, 9999, (5, 2))
    with h5py.File(tmp_path / "trident.h5", "w") as handle:
        handle["features"] = features[None] if extra_axis else features
        handle["features"].attrs["encoder"] = "uni_v1"
        handle["coords"] = coords[None] if extra_axis else coords
        handle["coords"].attrs.update({"patch_size_level0": 512, "target_magnification": 20})
    read = read_features(tmp_path / "trident.h5")
    np.testing.assert_array_equal(read.features, features)
    np.testing.assert_array_equal(read.coords, coords)
    assert (read.attrs["encoder"], read.attrs["patch_size_level0"]) == ("uni_v1", 512)
    assert read_header(tmp_path / "trident.h5")[0] == (5, 8)


@pytest.mark.parametrize("unit", ["um", np.bytes_(b"um")])
def test_stamp_layout(tmp_path: Path, unit: str | bytes) -> None:
    path = tmp_path / "stamp.h5"
    features = bag(5, 8).astype(np.float16)
    coords_px = RNG.integers(0, 9999, (5, 2))
    with h5py.File(path, "w") as handle:
        handle["coords"] = (coords_px * 0.2527).astype(np.float32)
        handle["feats"] = features
        handle.attrs.update({"stamp_version": "2.3.0", "extractor": "uni", "unit": unit})
        handle.attrs.update({"tile_size_um": 256.0, "tile_size_px": 224, "feat_type": "tile"})
    read = read_features(path)
    np.testing.assert_array_equal(read.features, features.astype(np.float32))
    assert read.coords is None
    assert read.attrs["foreign_coords_unit"] == "um"
    np.testing.assert_array_equal(read_features(path, um_per_px=0.2527).coords, coords_px)


def test_stamp_patient_vector_and_unknown_unit(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "p.h5", "w") as handle:
        handle["feats"] = bag(1, 8)
        handle["coords"] = np.zeros((1, 2))
    assert read_features(tmp_path / "p.h5", um_per_px=0.5).coords is None


def test_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = feature_path(tmp_path, "tiles", "p1")
    write_features(path, FeatureFile(np.ones((2, 2), np.float32)))
    code = f"""
        import os, signal
        import numpy as np, common.storage.atomic_file as atomic
        from pathlib import Path
        from common.cohort.features_h5 import FeatureFile, write_features
        atomic.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        write_features(Path({str(path)!r}), FeatureFile(np.zeros((2, 2), np.float32)))
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=False, env=environment
    )
    assert done.returncode == -signal.SIGKILL
    np.testing.assert_array_equal(read_features(path).features, np.ones((2, 2)))
    assert list(path.parent.glob("*.h5")) == [path]
