import numpy as np
import pandas as pd
import pytest

from common.errors import DataError
from simulations.cohorts.fed_tcga_brca import load_fed_tcga_brca, published_test_set
from simulations.cohorts.public_fits import fit_projection
from simulations.cohorts.tcga import load_tcga


@pytest.mark.shared_data
def test_luad_counts_are_the_published_ones(shared_data):
    cohort = load_tcga("luad", shared_data)
    assert len(cohort) == 453
    assert sum(bag is not None for bag in cohort.features["slide"]) == 422
    slide = np.array([bag is not None for bag in cohort.features["slide"]])
    assert int(cohort.event[slide].sum()) == 148
    assert int(np.isfinite(cohort.response[slide]).sum()) == 352
    assert set(cohort.hospital) >= {"55", "44", "78", "49"}


@pytest.mark.shared_data
def test_the_projection_of_a_cohort_never_sees_its_own_patients(shared_data, tmp_path):
    cohort = load_tcga("stad", shared_data)
    (tmp_path / "tcga").mkdir()
    for file in (shared_data / "tcga").iterdir():
        (tmp_path / "tcga" / file.name).symlink_to(file)
    changed = pd.read_parquet(shared_data / "tcga" / "genomics_stad.parquet")
    own = tmp_path / "tcga" / "genomics_stad.parquet"
    own.unlink()
    changed.iloc[:170].to_parquet(own)
    half = load_tcga("stad", tmp_path)
    at = {pid: i for i, pid in enumerate(cohort.patient_ids)}
    for pid, bag in zip(half.patient_ids, half.features["rna"], strict=True):
        np.testing.assert_array_equal(bag, cohort.features["rna"][at[pid]])


@pytest.mark.shared_data
def test_fed_tcga_brca_is_the_published_split(shared_data):
    cohort = load_fed_tcga_brca(shared_data)
    tested = published_test_set(shared_data)
    assert len(cohort) == 1088
    test = np.array([tested[pid] for pid in cohort.patient_ids])
    sizes = {h: int((cohort.hospital[~test] == h).sum()) for h in np.unique(cohort.hospital)}
    assert list(sizes.values()) == [248, 156, 164, 129, 129, 40]
    events = [int(cohort.event[test & (cohort.hospital == h)].sum()) for h in sizes]
    assert events == [14, 4, 8, 3, 2, 1]


def test_projection_has_unit_spread_and_fills_gaps_with_the_median():
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.normal(size=(300, 6)), columns=list("abcdef"))
    table["b"] += 3 * table["a"]
    projection = fit_projection([table], 3)
    projected = projection.apply(table)
    np.testing.assert_allclose(projected.std(axis=0), 1.0, atol=0.05)
    gaps = projection.apply(pd.DataFrame(index=[0], columns=list("abcdef"), dtype=float))
    np.testing.assert_allclose(gaps, 0.0, atol=1e-6)
    with pytest.raises(DataError, match="components"):
        fit_projection([table], 7)


def test_unknown_cohort_and_missing_folder_say_so(tmp_path):
    with pytest.raises(DataError, match="unknown TCGA cohort"):
        load_tcga("xyz", tmp_path)
    with pytest.raises(DataError, match="missing") as caught:
        load_tcga("luad", tmp_path)
    assert "--data" in caught.value.cure
