"""A model, an extractor and an aggregation rule of another installed distribution, in a study."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_consortium import tiny_policy
from typer.testing import CliRunner

from client.agent.open_run import stored_features
from client.agent.site_agent import SiteAgent
from client.data.dataset import PatientDataset
from client.extract.run.runner import run_extraction
from client.predict.predict import predict
from common.cohort.features_h5 import feature_path, read_features
from common.cohort.manifest import read_manifest
from common.commands.cli_output import Output
from common.commands.study_cli import app
from common.commands.study_freeze import check_runnable
from common.contract import canonical_json
from common.errors import ConfigError, ErrorCode, PrivacyError
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays
from common.protocol.protocol import HandshakeRequest
from common.registry import offered
from common.study.study import Study
from common.trust.plugins import check_plugins, with_plugins
from common.trust.provenance import code_digest
from simulations.engines.consortium_run import run_in_process

SOURCE = Path(__file__).parents[2] / "other_package"
QUIET = Output(json_mode=True)
SITES = ("a", "b", "c", "d")


def study_of(model="pooled", rule="geometric_median", mode="none", **changes):
    keys = {
        "study_id": "theirs",
        "synthetic": True,
        "endpoints": {"response": {"positive": "responds"}},
        "features": {
            "laboratory": {"modality": "clinical", "dim": 2, "extractor": {"kind": "laboratory"}}
        },
        "model": {"name": model, "options": {"width": 4}},
        "training": {
            "rounds": 6,
            "nominal_patients": 80,
            "aggregation": {"rule": rule},
            "server": {"name": "sgd", "lr": 1.0},
        },
        "privacy": {"mode": mode, "evaluation": {"release": "internal"}},
        "quorum": {"min_sites": 3},
        "sites": [{"site_id": site} for site in SITES],
    }
    return Study.from_mapping(keys | changes, where="study_of")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    where = ["--no-build-isolation", "--target", folder / "lib", folder / "source"]
    subprocess.run([*pip, *where], check=True)
    return folder / "lib"


@pytest.fixture
def library(installed, tmp_path, monkeypatch):
    """The folder the distribution is installed in, on the path for one test."""
    shutil.copytree(installed, tmp_path / "lib")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    offered.cache_clear()
    yield tmp_path / "lib"
    offered.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "other_package"]:
        del sys.modules[name]


def write_hospital(folder, site, n=20):
    """A manifest whose laboratory values tell the response."""
    rng = np.random.default_rng(SITES.index(site))
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patient_id", "clinical_ldh", "clinical_haemoglobin", "response"])
        for i in range(n):
            latent = rng.normal(size=2)
            response = int(latent[0] - latent[1] > 0)
            table.writerow([f"{site}{i}", 230 + 70 * latent[0], 13.3 + 1.3 * latent[1], response])


def agents_of(study, folder):
    found = {}
    for site in SITES:
        policy = tiny_policy(study, site, folder)
        if not policy.manifest.exists():
            write_hospital(folder / site, site)
            manifest = read_manifest(policy.manifest)
            done = run_extraction(
                manifest, study.features, policy.feature_store, workers=0, output=QUIET
            )
            assert done.done == 20
        found[site] = SiteAgent(policy, stored_features(policy))
    return found


def accuracy(study, arrays, folder):
    """Return the share of a hospital's patients whose response the model gets right."""
    model = build_model(study)
    load_arrays(model, arrays)
    manifest = read_manifest(folder / "manifest.csv")
    patients = PatientDataset.from_store(study, manifest, folder / "features")
    found = predict(model, patients, study)
    right = [(p.response_probability > 0.5) == manifest.row(p.patient_id).response for p in found]
    return np.mean(right)


def handshake(study, agent):
    text = canonical_json(study.model_dump(mode="json"))
    request = HandshakeRequest(
        run_id="r", study_json=text, study_digest=study.digest(), code_digest=code_digest()
    )
    return agent.handshake(request)


@pytest.mark.parametrize("mode", ["none", "local"])
def test_a_study_with_code_of_another_distribution_trains(library, tmp_path, mode):
    study = with_plugins(study_of(mode=mode))
    assert [str(plugin) for plugin in study.plugins] == [
        "aggregation 'geometric_median' of other-package 0.3",
        "extractor 'laboratory' of other-package 0.3",
        "model 'pooled' of other-package 0.3",
    ]
    check_runnable(study)
    agents = agents_of(study, tmp_path / "sites")
    result = run_in_process(study, agents, tmp_path / "run", output=QUIET)
    assert [record.sites for record in result.history] == [list(SITES)] * 6
    assert mode == "local" or accuracy(study, result.arrays, tmp_path / "sites" / "a") > 0.8
    assert Study.from_yaml(tmp_path / "run" / "study.json").plugins == study.plugins


def test_workers_find_the_extractor_too(library, tmp_path):
    write_hospital(tmp_path / "h", "a", n=3)
    store, manifest = tmp_path / "store", read_manifest(tmp_path / "h" / "manifest.csv")
    run_extraction(manifest, study_of().features, store, workers=1, output=QUIET)
    token = read_features(feature_path(store, "laboratory", "a0")).features
    expected = np.random.default_rng(0).normal(size=2)
    np.testing.assert_allclose(token, [expected], rtol=1e-5)


def test_freezing_names_the_distribution_and_validate_knows_the_digest(library, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(canonical_json(study_of().model_dump(mode="json")))
    told = [
        CliRunner().invoke(app, [c, str(path), "--json"]).stdout for c in ("validate", "freeze")
    ]
    frozen = Study.from_yaml(tmp_path / "study.frozen.json")
    assert {plugin.version for plugin in frozen.plugins} == {"0.3"}
    assert all(frozen.digest() in text for text in told)
    assert with_plugins(frozen) == frozen
    assert "plugins" not in study_of("linear", "mean").model_dump()


def test_a_model_that_mixes_patients_is_refused_wherever_it_comes_from(library, tmp_path):
    study = with_plugins(study_of("batch_normed", mode="local"))
    with pytest.raises(PrivacyError, match="BatchNorm") as caught:
        check_runnable(study)
    assert caught.value.code is ErrorCode.LAYER_NOT_PRIVATE
    reply = handshake(study, agents_of(study, tmp_path / "sites")["a"])
    assert (reply.accepted, reply.refusal_code) == (False, ErrorCode.LAYER_NOT_PRIVATE)


def uninstall(library):
    shutil.rmtree(library)


def update(library):
    meta = next(library.glob("*.dist-info")) / "METADATA"
    meta.write_text(meta.read_text().replace("Version: 0.3", "Version: 0.4"))


def alter(library):
    with (library / "other_package" / "pooled.py").open("a") as stream:
        stream.write("# altered\n")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (uninstall, "no distribution here offers it"),
        (update, "here is other-package 0.4"),
        (alter, "its sources differ"),
    ],
)
def test_a_site_with_other_code_refuses(library, tmp_path, change, why):
    study = with_plugins(study_of())
    agents = agents_of(study, tmp_path / "sites")
    assert handshake(study, agents["a"]).accepted
    change(library)
    offered.cache_clear()
    reply = handshake(study, agents["b"])
    assert (reply.accepted, reply.refusal_code) == (False, ErrorCode.PLUGIN)
    with pytest.raises(ConfigError, match="is not what is installed here") as caught:
        check_plugins(study)
    assert why in caught.value.why
    with pytest.raises(ConfigError) as refused:
        run_in_process(study, agents, tmp_path / "run", output=QUIET)
    assert refused.value.code is ErrorCode.PLUGIN


def test_a_study_that_does_not_name_the_distribution_is_refused(library, tmp_path):
    study = study_of()
    agents = agents_of(study, tmp_path / "sites")
    assert handshake(study, agents["a"]).refusal_code == ErrorCode.PLUGIN
    with pytest.raises(ConfigError, match="does not name the distribution of"):
        run_in_process(study, agents, tmp_path / "run", output=QUIET)


def test_the_model_under_linear_heads_counts_too(library):
    options = {"trunk": "pooled", "trunk_options": {"width": 4}}
    trunk = {"model": {"name": "frozen_trunk", "options": options}}
    study = with_plugins(Study.model_validate(study_of(rule="mean").model_dump() | trunk))
    assert "model 'pooled' of other-package 0.3" in map(str, study.plugins)
    check_runnable(study)


@pytest.mark.parametrize("options", [{"step": 3}, {"rows": 1, "steps": 3, "n": 2}])
def test_options_a_rule_does_not_take_are_refused(library, options):
    aggregation = {"rule": "geometric_median", "options": options}
    study = study_of(training={"aggregation": aggregation})
    with pytest.raises(ConfigError, match="options of rule 'geometric_median'") as caught:
        check_runnable(study)
    assert "smoothing, steps" in caught.value.cure


def test_a_rule_that_nobody_offers_is_refused_when_the_study_is_read():
    with pytest.raises(ConfigError, match="unknown rule 'geometric_median', use one of: mean"):
        study_of()


def test_distributed_mode_takes_no_rule_of_another_distribution(library):
    with pytest.raises(ConfigError, match="opens only the sum"):
        study_of(mode="distributed")
