import json

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from client.extract.kinds.extractor import create_extractor
from common.errors import ConfigError, DataError
from common.models.base.build import build_model
from simulations.synthetic import public_reference
from simulations.synthetic.clinical_record import COLUMNS, draw_record
from simulations.synthetic.cohort import draw_cohort
from simulations.synthetic.feature_cohort import FeatureShape, feature_consortium
from simulations.synthetic.feature_sets import SCALED_BY_REFERENCE, raw_feature_sets
from simulations.synthetic.spec import FACTORS, demo_spec
from simulations.synthetic.streams import stream
from simulations.synthetic.study_template import demo_study, feature_study

SHOWN = {
    "tiles": "pathology",
    "slices": "radiology",
    "radiomics": "radiology",
    "pathways": "genomics",
    "clinical_table": "clinical",
}


@pytest.fixture(scope="module")
def complete():
    spec = demo_spec(patients=250, complete=True)
    return spec, feature_consortium(spec)


def pooled(name, bag):
    return bag.mean(axis=1) if name == "pathways" else bag.mean(axis=0)


@pytest.mark.parametrize("name", SHOWN)
def test_each_factor_can_be_read_from_its_features(complete, name):
    spec, sites = complete
    x = np.stack([pooled(name, bag) for bag in sites.features[name]])
    latent = np.concatenate([draw_cohort(spec, site).latent for site in spec.sites])
    z = latent[:, FACTORS.index(SHOWN[name])]
    train = np.arange(len(z)) % 2 == 0
    model = RidgeCV(np.logspace(-2, 4, 7)).fit(x[train], z[train])
    assert model.score(x[~train], z[~train]) > 0.8
    for other in set(FACTORS) - {SHOWN[name]}:
        w = latent[:, FACTORS.index(other)]
        model = RidgeCV(np.logspace(-2, 4, 7)).fit(x[train], w[train])
        assert model.score(x[~train], w[~train]) < 0.1


def test_only_some_tiles_are_informative(complete):
    _, sites = complete
    tiles = np.concatenate(sites.by_hospital()["synthetic-alder"].features["tiles"])
    axis = np.linalg.svd(tiles - tiles.mean(axis=0), full_matrices=False)[2][0]
    along = tiles @ axis
    upper = along > (along.min() + along.max()) / 2
    share = min(upper.mean(), 1 - upper.mean())
    gap = abs(along[upper].mean() - along[~upper].mean())
    assert 0.25 < share < 0.45
    assert gap > 4 * max(along[upper].std(), along[~upper].std())


def test_a_dataset_takes_them_with_their_gaps():
    spec = demo_spec(patients=30)
    study = feature_study(spec)
    for site in spec.sites:
        cohort, drawn = draw_cohort(spec, site), feature_consortium(spec).by_hospital()
        dataset = drawn[site.site_id].dataset(study)
        for name, modality in SHOWN.items():
            assert np.array_equal(dataset.present(name), cohort.has(modality))


def test_features_do_not_depend_on_the_other_hospitals():
    shape = FeatureShape(tile_dim=8)
    three = feature_consortium(demo_spec(patients=4, sites=3), shape)
    one = feature_consortium(demo_spec(patients=4, sites=1), shape)
    a, b = three.by_hospital()["synthetic-alder"], one
    for name in SHOWN:
        for left, right in zip(a.features[name], b.features[name], strict=True):
            assert (left is None) == (right is None)
            assert left is None or np.array_equal(left, right)


def test_clinical_columns_follow_their_factor():
    records = {
        z: [draw_record(z, 0.0, stream(1, str(z), str(i))) for i in range(200)] for z in (-1.5, 1.5)
    }
    assert set(records[1.5][0]) == set(COLUMNS)
    for name, sign in (("age", 1), ("ecog", 1), ("ldh", 1), ("haemoglobin", -1)):
        low, high = (np.mean([r[name] for r in records[z]]) for z in (-1.5, 1.5))
        assert sign * (high - low) > 0, name
    empty = [draw_record(0.0, 0.5, stream(1, str(i)))["stage"] is None for i in range(300)]
    assert 0.4 < np.mean(empty) < 0.6


@pytest.mark.parametrize("name", [*SCALED_BY_REFERENCE, "pathways", "clinical_table"])
def test_extractors_accept_the_study_and_made_its_constants(name):
    spec = demo_study(demo_spec()).features[name]
    extractor = create_extractor(name, spec)
    if name in SCALED_BY_REFERENCE:
        assert len(spec.scaling.center) == spec.dim
        stored = json.loads(public_reference.REFERENCE_FILE.read_text())["features"][name]
        assert stored["fingerprint"] == extractor.fingerprint, (
            "the extractor changed: run python -m simulations.synthetic.public_reference"
        )


def test_the_study_has_one_digest_and_depends_on_its_arguments():
    spec = demo_spec()
    assert demo_study(spec).digest() == demo_study(spec).digest()
    digests = {demo_study(spec, mode).digest() for mode in ("none", "local", "distributed")}
    assert len(digests) == 3
    with pytest.raises(ConfigError, match="unknown feature sets: tile"):
        demo_study(spec, features=["tile"])


def test_missing_constants_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(public_reference, "REFERENCE_FILE", tmp_path / "none.json")
    with pytest.raises(DataError, match="public constants"):
        public_reference.reference_scaling()
    (tmp_path / "none.json").write_text('{"features": {"tiles": {}}}')
    with pytest.raises(DataError, match="public constants"):
        public_reference.reference_scaling()


def test_raw_feature_sets_cover_all_modalities():
    assert {spec.modality for spec in raw_feature_sets().values()} == set(FACTORS)


@pytest.mark.parametrize("features", [None, ["tiles"], ["slices", "clinical_table"]])
def test_private_heads_can_be_built_on_any_feature_sets(features: list[str] | None) -> None:
    study = feature_study(demo_spec(patients=4), mode="local", features=features)
    assert set(build_model(study).features) == set(study.features)
