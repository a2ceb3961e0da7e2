"""The mechanism without its transport trains what real agents and the real server train."""

import numpy as np
import pytest
from tiny_consortium import tiny_agents, tiny_datasets, tiny_study

from common.commands.cli_output import Output
from common.errors import ConfigError
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes
from common.privacy.noise import skellam
from common.study.private_round import encoding_of
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import with_identities
from simulations.trials import site_trials
from simulations.trials.site_trials import SiteTrial, train_by_site

SITES = [{"site_id": f"site-{letter}"} for letter in "abcde"]
PLAN = {"rounds": 6, "nominal_patients": 150, "test_fraction": 0.0}


def make_study(mode, server="adam", **changes):
    privacy = {"mode": mode, "epsilon": 3.0, "evaluation": {"release": "internal"}}
    training = PLAN | {"server": {"name": server}}
    return tiny_study(privacy=privacy | changes, training=training, sites=SITES)


def consortium(study):
    """Patients of five sites in one dataset, and whose is whose; the last has no radiology."""
    union = tiny_datasets(study, n=150)["site-a"]
    order = np.argsort(~union.present("radiology"), kind="stable")
    rows = dict(zip([entry.site_id for entry in study.sites], np.split(order, 5), strict=True))
    assert "radiology" not in union.select(rows["site-e"]).modalities
    return union, rows


def train_alone(study, union, rows):
    return train_by_site(union, [SiteTrial(study, rows)])[0]


def run_agents(study, folder, union, rows):
    datasets = {site: union.select(own) for site, own in rows.items()}
    agents = tiny_agents(study, folder / "sites", datasets=datasets)
    return run_in_process(study, agents, folder / "run", output=Output(json_mode=True)).arrays


def assert_same(found, expected, atol):
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=atol, err_msg=name)


def one_deviation(drawn):
    """Return a sampler that notes every variance asked for and answers its square root."""

    def sample(size, variance):
        drawn.append(variance)
        return np.full(size, round(variance**0.5), dtype=np.int64)

    return sample


def test_without_privacy_it_is_the_run_over_real_agents(tmp_path):
    study = make_study("none")
    union, rows = consortium(study)
    found = train_alone(study, union, rows)
    assert_same(found, run_agents(study, tmp_path, union, rows), 1e-6)
    start = build_model(study).state_dict()
    assert max(np.abs(found[name] - start[name].numpy()).max() for name in found) > 0.05


@pytest.mark.parametrize("mode", ["distributed", "local"])
def test_noise_enters_as_in_the_run_over_real_agents(mode, tmp_path, monkeypatch):
    study = make_study(mode)
    if mode == "distributed":
        study = with_identities(study, tmp_path / "sites")
    real, simulated = [], []
    union, rows = consortium(study)
    with monkeypatch.context() as patch:
        patch.setattr("common.privacy.integer_encoding.skellam", one_deviation(real))
        expected = run_agents(study, tmp_path, union, rows)
    monkeypatch.setattr("simulations.trials.site_trials.skellam", one_deviation(simulated))
    found = train_alone(study, union, rows)
    assert len(simulated) == PLAN["rounds"] * len(SITES)
    assert simulated == real
    shares = 3 if mode == "distributed" else 1  # n_min - t = 4 - 1 of five sites
    encoding = encoding_of(study, expected_shapes(build_model(study)))
    assert simulated[0] == pytest.approx(encoding.total_variance / shares, rel=1e-12)
    assert_same(found, expected, 1e-6)


def test_noise_of_the_opened_sum_has_the_designed_variance(monkeypatch):
    study = make_study("distributed")
    encoding = encoding_of(study, expected_shapes(build_model(study)))
    noise = []

    def noted(study, parameters, sums):
        noise.append(np.concatenate([value.reshape(-1) for value in sums.values()]))
        return {name: np.zeros_like(value) for name, value in sums.items()}

    monkeypatch.setattr("server.aggregate.method.descent", noted)
    union, rows = consortium(study)
    nobody = dict.fromkeys(rows, np.arange(0))
    for _ in range(60):
        train_alone(study, union, nobody)
    values = np.concatenate(noise)
    assert len(values) > 5000
    error = 4 * (2 / len(values)) ** 0.5
    assert values.var() == pytest.approx(encoding.noise_sd(5) ** 2, rel=error)


def test_trials_together_are_each_trial_alone(monkeypatch):
    """Five sites without privacy, and with the noise of each taken out; one site alone."""
    zeros = lambda size, _variance: np.zeros(size, dtype=np.int64)  # noqa: E731
    monkeypatch.setattr(site_trials, "skellam", zeros)
    modes = {"none": 0.3, "distributed": 0.3, "local": 0.1}
    studies = [make_study(mode, "sgd", clip=clip) for mode, clip in modes.items()]
    alone = make_study("none", "sgd").model_copy(update={"sites": studies[0].sites[:1]})
    union = tiny_datasets(studies[0], n=60)["site-a"]
    rows = np.split(np.arange(60), 5)
    by_site = {e.site_id: own for e, own in zip(studies[0].sites, rows, strict=True)}
    trials = [SiteTrial(study, {"all": np.arange(60)}) for study in studies]
    found = train_by_site(union, [*trials, SiteTrial(alone, {"site-a": rows[0]})])
    for study, arrays in zip(studies, found, strict=False):
        assert_same(arrays, train_alone(study, union, by_site), 1e-5)
    assert_same(found[3], train_alone(alone, union, {"site-a": rows[0]}), 1e-5)


def test_trials_draw_the_noise_of_all_sites(monkeypatch):
    drawn = []

    def noted(size, variance):
        drawn.append(variance)
        return skellam(size, variance)

    monkeypatch.setattr(site_trials, "skellam", noted)
    studies = [make_study("distributed"), make_study("local"), make_study("distributed", n_min=5)]
    union = tiny_datasets(studies[0])["site-a"]
    train_by_site(union, [SiteTrial(study, {"all": np.arange(len(union))}) for study in studies])
    shapes = expected_shapes(build_model(studies[0]))
    designed = [encoding_of(study, shapes).share_variance * 5 for study in studies]
    assert drawn[:3] == pytest.approx(designed)


def test_trials_must_train_the_same_model():
    study = make_study("none")
    longer = study.model_copy(update={"training": study.training.model_copy(update={"rounds": 7})})
    data = tiny_datasets(study)["site-a"]
    with pytest.raises(ConfigError, match="alike"):
        train_by_site(data, [SiteTrial(s, {"all": np.arange(5)}) for s in (study, longer)])
    with pytest.raises(ConfigError, match="no trial"):
        train_by_site(data, [])
