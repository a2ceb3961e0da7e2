import pytest
from tiny_consortium import tiny_study

from common.errors import ConfigError

EPOCHS = {"kind": "epochs", "optimizer": "sgd", "lr": 0.1}
AVERAGE = {"name": "average"}

REFUSED = {
    "only the sum of all": {
        "training": {"aggregation": {"rule": "median"}},
        "privacy": {"mode": "distributed"},
    },
    "control_variates needs": {"training": {"local": {"control_variates": True}}},
    "use optimizer: sgd": {
        "training": {"local": EPOCHS | {"optimizer": "adam", "control_variates": True}}
    },
    "cyclic needs": {"training": {"schedule": "cyclic"}},
    "cyclic passes one": {"training": {"schedule": "cyclic", "local": EPOCHS}},
    "stay_local needs": {"training": {"stay_local": ["heads.*"]}},
    "would reveal them": {
        "training": {"personal": {"kind": "ditto"}},
        "privacy": {"mode": "local"},
    },
    "exclude each other": {
        "training": {"personal": {"kind": "ditto"}, "stay_local": ["heads.*"], "local": EPOCHS}
    },
    "personal.local.kind": {
        "training": {"personal": {"kind": "fine_tune", "local": {"kind": "gradient_sum"}}}
    },
}


@pytest.mark.parametrize("told", REFUSED)
def test_contradictions_are_refused_and_named(told):
    with pytest.raises(ConfigError, match=told):
        tiny_study(**REFUSED[told])


def test_site_without_an_announced_size_has_an_equal_share():
    sites = [{"site_id": "a", "nominal_patients": 11}, {"site_id": "b"}, {"site_id": "c"}]
    assert tiny_study(sites=sites).nominal_by_site == {"a": 11.0, "b": 30.0, "c": 30.0}
