"""Model names and options are checked with a cure."""

import pytest
from random_patients import make_study

from common.errors import ConfigError
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes
from common.study.catalogue import MODELS


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        build_model(make_study("moemill"))
    assert all(name in caught.value.cure for name in MODELS.names())


@pytest.mark.parametrize("name", ["linear", "moemil"])
def test_an_unknown_option_is_refused_by_name(name):
    with pytest.raises(ConfigError, match="widht"):
        build_model(make_study(name, widht=3))


def test_trainable_leaves_only_the_named_parameters_to_training():
    model = build_model(make_study("moemil", size="small", trainable=["heads", "fusion.experts"]))
    names = list(expected_shapes(model))
    assert names
    assert all(name.startswith(("heads", "fusion.experts")) for name in names)


def test_trainable_that_names_nothing_is_refused():
    with pytest.raises(ConfigError, match="no parameter would be trained"):
        build_model(make_study("linear", trainable=["nonsense"]))


@pytest.mark.parametrize("name", ["keys", "a.b"])
def test_a_feature_name_that_cannot_name_parameters_is_refused(name):
    with pytest.raises(ConfigError, match="cannot name a feature set"):
        build_model(make_study("linear", features={name: {"modality": "clinical", "dim": 2}}))


def test_the_published_size_of_moemil():
    features = {
        "tiles": {"modality": "pathology", "dim": 1024, "max_tokens": 4096},
        "slices": {"modality": "radiology", "dim": 2048, "max_tokens": 15},
        "radiomics": {"modality": "radiology", "dim": 321},
    }
    model = build_model(make_study("moemil", features=features))
    n_parameters = sum(p.numel() for p in model.parameters())
    assert 3.0e6 < n_parameters < 5.0e6
