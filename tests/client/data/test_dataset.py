"""Batches hold exactly the patients asked for, whatever stands beside them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.bags import scale, token_sample
from client.data.dataset import PatientDataset
from common.cohort.features_h5 import FINGERPRINT, FeatureFile, feature_path, write_features
from common.cohort.manifest import Manifest, PatientRow
from common.errors import ConfigError, DataError, ErrorCode, FeatureError
from common.study.study import PublicScaling, Study

NAN = float("nan")


def make_study(**features: dict[str, object]) -> Study:
    features = features or {
        "tiles": {"modality": "pathology", "dim": 3, "max_tokens": 6},
        "table": {"modality": "clinical", "dim": 2},
    }
    return Study.model_validate(
        {
            "study_id": "s",
            "endpoints": {"response": {"positive": "pCR"}, "survival": {}},
            "features": features,
            "privacy": {"mode": "none"},
            "quorum": {"min_sites": 1},
            "sites": [{"site_id": "a"}],
        }
    )


def make_dataset(lengths: list[int], study: Study | None = None) -> PatientDataset:
    """A cohort whose bag lengths are given; 0 = the patient has no tiles."""
    rng = np.random.default_rng(len(lengths))
    n = len(lengths)
    return PatientDataset.from_arrays(
        study or make_study(),
        [f"p{i}" for i in range(n)],
        {
            "tiles": [rng.normal(size=(t, 3)) if t else None for t in lengths],
            "table": [rng.normal(size=2) if i % 3 else None for i in range(n)],
        },
        response=[[1.0, 0.0, NAN][i % 3] for i in range(n)],
        time_months=[NAN if i % 4 == 0 else i + 0.5 for i in range(n)],
        event=[NAN if i % 4 == 0 else i % 2 for i in range(n)],
    )


bag_lengths = st.lists(st.integers(0, 9), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(lengths=bag_lengths, data=st.data())
def test_a_batch_is_its_patients_one_by_one(lengths: list[int], data: st.DataObject) -> None:
    dataset = make_dataset(lengths)
    order = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    batch = dataset.batch(order)
    for row, index in enumerate(order):
        alone = dataset.batch([index])
        for name in batch.tokens:
            t = alone.tokens[name].shape[1]
            assert torch.equal(batch.tokens[name][row, :t], alone.tokens[name][0])
            assert torch.equal(batch.mask[name][row, :t], alone.mask[name][0])
            assert not batch.tokens[name][row, t:].any()
            assert not batch.mask[name][row, t:].any()
            assert batch.present[name][row] == alone.present[name][0]
        for label in ("response", "time_months", "event"):
            assert getattr(batch, label)[row] == getattr(alone, label)[0]
        for task in ("response", "survival"):
            assert batch.observed[task][row] == alone.observed[task][0]


@settings(max_examples=40, deadline=None)
@given(lengths=bag_lengths)
def test_one_patient_is_unpadded_and_absence_is_a_flag(lengths: list[int]) -> None:
    dataset = make_dataset(lengths)
    for index, length in enumerate(lengths):
        batch = dataset.batch([index])
        tokens, mask = batch.tokens["tiles"], batch.mask["tiles"]
        assert tokens.dtype == torch.float32
        assert tokens.shape == (1, min(length, 6) or 1, 3)
        assert bool(batch.present["tiles"]) is (length > 0)
        assert bool(mask.all()) is (length > 0)
        if length == 0:
            assert not tokens.any()


@settings(max_examples=40, deadline=None)
@given(lengths=bag_lengths, data=st.data())
def test_select_and_order_do_not_change_a_patient(lengths: list[int], data: st.DataObject) -> None:
    dataset = make_dataset(lengths)
    order = data.draw(st.permutations(range(len(lengths))))
    shuffled = dataset.select(order)
    assert shuffled.patient_ids == [dataset.patient_ids[i] for i in order]
    ours, theirs = dataset.batch(order), shuffled.batch(range(len(order)))
    for name in ours.tokens:
        assert torch.equal(ours.tokens[name], theirs.tokens[name])
    assert torch.equal(ours.event, theirs.event)


def test_labels_and_summary() -> None:
    dataset = make_dataset([1, 0, 2, 3, 1])
    batch = dataset.batch(range(5))
    assert batch.observed["response"].tolist() == [True, True, False, True, True]
    assert batch.observed["survival"].tolist() == [False, True, True, True, False]
    assert batch.response.tolist() == [1, 0, 0, 1, 0]
    assert batch.time_months.tolist() == [0, 1.5, 2.5, 3.5, 0]
    summary = dataset.records
    assert (summary.n, summary.n_events, summary.n_responders) == (5, 2, 2)
    assert summary.n_observed == {"response": 4, "survival": 3}
    assert summary.n_present == {"tiles": 4, "table": 3}
    assert dataset.modalities == ("pathology", "clinical")
    assert make_dataset([0, 0]).modalities == ("clinical",)
    assert make_dataset([0]).modalities == ()


def test_survival_needs_time_and_event() -> None:
    dataset = PatientDataset.from_arrays(
        make_study(), ["a", "b", "c"], {}, [NAN] * 3, [1, 2, NAN], [1, NAN, 0]
    )
    assert dataset.batch(range(3)).observed["survival"].tolist() == [True, False, False]
    assert dataset.records.n_events == 1


def test_a_task_outside_the_study_is_never_observed() -> None:
    study = make_study().model_copy(
        update={"endpoints": make_study().endpoints.model_copy(update={"response": None})}
    )
    dataset = make_dataset([1, 2, 3], study)
    assert not dataset.batch(range(3)).observed["response"].any()
    assert dataset.records.n_responders == 0


def test_scaling_is_the_stated_formula() -> None:
    values = np.array([[3.0, 5.0], [1.0, 100.0]], np.float32)
    scaling = PublicScaling(center=[1.0, 5.0], scale=[2.0, 10.0], clip=3.0)
    np.testing.assert_allclose(scale(values, scaling), [[1, 0], [0, 3]])
    bounded = scale(values, scaling.model_copy(update={"row_norm": 1.5}))
    np.testing.assert_allclose(bounded, [[1, 0], [0, 1.5]])
    assert scale(np.zeros((1, 2), np.float32), PublicScaling(row_norm=1.0)).tolist() == [[0, 0]]


@given(n=st.integers(0, 300), most=st.integers(1, 100), patient=st.text(max_size=5), name=st.text())
def test_kept_tokens_are_a_fixed_ordered_subset(n: int, most: int, patient: str, name: str) -> None:
    kept = token_sample(name, patient, n, most)
    assert len(kept) == min(n, most)
    assert np.array_equal(kept, np.unique(kept))
    assert all(0 <= k < n for k in kept)
    assert np.array_equal(kept, token_sample(name, patient, n, most))


def test_kept_tokens_are_uniform_and_pinned() -> None:
    counts = np.zeros(20)
    for patient in range(2000):
        counts[token_sample("tiles", str(patient), 20, 5)] += 1
    # Binomial(2000, 1/4): sd 19.4; 5 sd.
    assert np.abs(counts - 500).max() < 97
    # A change here changes what every model in every hospital sees.
    assert token_sample("tiles", "p1", 10, 4).tolist() == [0, 1, 5, 8]


def test_ordered_tokens_are_never_subsampled() -> None:
    study = make_study(
        tiles={"modality": "genomics", "dim": 3, "max_tokens": 2, "pool": "row_mean"}
    )
    for tokens in (1, 3):
        dataset = PatientDataset.from_arrays(study, ["p"], {}, [1], [1], [1])
        with pytest.raises(FeatureError, match="public order of 2"):
            PatientDataset.from_arrays(
                study, ["p"], {"tiles": [np.ones((tokens, 3))]}, [1], [1], [1]
            )
        assert dataset.modalities == ()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"patient_ids": ["a", "a"]}, "'a' occurs twice"),
        ({"patient_ids": []}, "there is no patient"),
        ({"features": {"mri": [None, None]}}, "'mri' is not in the study"),
        ({"features": {"table": [None]}}, "1 bags for 2 patients"),
        ({"response": [2, 1]}, "response holds 2.0"),
        ({"event": [0.5, 1]}, "event holds 0.5"),
        ({"time_months": [-1, 1]}, "time_months holds -1.0"),
        ({"time_months": [np.inf, 1]}, "time_months holds inf"),
        ({"event": [1]}, "event has shape (1,)"),
    ],
)
def test_impossible_arrays_are_refused(change: dict[str, object], what: str) -> None:
    arguments: dict[str, object] = {
        "patient_ids": ["a", "b"],
        "features": {},
        "response": [1, 0],
        "time_months": [1, 2],
        "event": [1, 0],
    }
    with pytest.raises(DataError) as caught:
        PatientDataset.from_arrays(make_study(), **(arguments | change))
    assert what in caught.value.what


def test_bad_bags_in_memory_are_refused() -> None:
    def build(bag: np.ndarray) -> None:
        PatientDataset.from_arrays(make_study(), ["a"], {"table": [bag]}, [1], [1], [1])

    with pytest.raises(FeatureError, match="shape"):
        build(np.ones(3))
    with pytest.raises(FeatureError, match="NaN") as caught:
        build(np.array([1.0, NAN]))
    assert caught.value.code == ErrorCode.FEATURE_NOT_FINITE


@pytest.mark.parametrize(
    "scaling", [{"scale": 0.0}, {"scale": [1.0, -1.0, 1.0]}, {"center": [0.0]}]
)
def test_wrong_public_scaling_is_refused(scaling: dict[str, object]) -> None:
    study = make_study(tiles={"modality": "pathology", "dim": 3, "scaling": scaling})
    with pytest.raises(ConfigError) as caught:
        PatientDataset.from_arrays(study, ["a"], {}, [1], [1], [1])
    assert "features.tiles.scaling" in caught.value.where


def test_an_empty_batch_is_refused() -> None:
    dataset = make_dataset([2, 2, 3, 0])
    with pytest.raises(DataError, match="empty batch"):
        dataset.batch([])


def make_store(folder: Path, fingerprints: dict[str, str | None], dim: int = 3) -> Manifest:
    rows = []
    for patient, fingerprint in fingerprints.items():
        attrs = {FINGERPRINT: fingerprint} if fingerprint else {}
        file = FeatureFile(np.full((2, dim), 7, np.float32), None, attrs)
        write_features(feature_path(folder, "tiles", patient), file)
        rows.append(PatientRow(patient_id=patient, response=1))
    rows.append(PatientRow(patient_id="bare", response=0))
    rows.append(PatientRow(patient_id="unlabelled"))
    write_features(
        feature_path(folder, "tiles", "unlabelled"),
        FeatureFile(np.zeros((1, dim), np.float32), None, attrs),
    )
    return Manifest(path=folder / "manifest.csv", rows=rows)


def test_from_store_keeps_the_usable_and_reads_lazily(tmp_path: Path) -> None:
    manifest = make_store(tmp_path, {"a": "f", "b": "f"})
    dataset = PatientDataset.from_store(make_study(), manifest, tmp_path)
    assert dataset.patient_ids == ["a", "b"]
    assert PatientDataset.from_store(
        make_study(), manifest, tmp_path, require_outcome=False
    ).patient_ids == ["a", "b", "unlabelled"]
    first = dataset.batch([0])
    feature_path(tmp_path, "tiles", "a").unlink()
    assert torch.equal(dataset.batch([0]).tokens["tiles"], first.tokens["tiles"])
    assert first.tokens["tiles"].unique().tolist() == [7]
    feature_path(tmp_path, "tiles", "b").unlink()
    with pytest.raises(FeatureError, match="does not exist"):
        dataset.batch([1])


def test_foreign_fingerprints_are_refused(tmp_path: Path) -> None:
    manifest = make_store(tmp_path, {"a": "f" * 64, "b": "f" * 64, "c": "e" * 64})
    with pytest.raises(FeatureError, match="another extractor") as caught:
        PatientDataset.from_store(make_study(), manifest, tmp_path)
    assert caught.value.code == ErrorCode.FEATURE_FINGERPRINT
    spec = {"modality": "pathology", "dim": 3, "max_tokens": 6}
    with pytest.raises(FeatureError, match="another extractor") as caught:
        PatientDataset.from_store(
            make_study(tiles={**spec, "fingerprint": "e" * 64}), manifest, tmp_path
        )
    assert caught.value.code == ErrorCode.FEATURE_FINGERPRINT
    assert "a.h5" in caught.value.where


def test_a_file_without_fingerprint_needs_a_study_without_one(tmp_path: Path) -> None:
    manifest = make_store(tmp_path, {"a": None})
    spec = {"modality": "pathology", "dim": 3, "max_tokens": 6}
    assert len(PatientDataset.from_store(make_study(tiles=spec), manifest, tmp_path)) == 1
    with pytest.raises(FeatureError, match="another extractor"):
        PatientDataset.from_store(
            make_study(tiles={**spec, "fingerprint": "e" * 64}), manifest, tmp_path
        )


def test_wrong_width_and_empty_cohort_are_refused(tmp_path: Path) -> None:
    manifest = make_store(tmp_path, {"a": "f"}, dim=5)
    with pytest.raises(FeatureError, match="shape"):
        PatientDataset.from_store(make_study(), manifest, tmp_path)
    with pytest.raises(DataError, match="no patient has features and an outcome") as caught:
        PatientDataset.from_store(make_study(), manifest, tmp_path / "elsewhere")
    assert "usable 0" in caught.value.why
