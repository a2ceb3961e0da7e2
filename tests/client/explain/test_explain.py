"""A hospital explains its patients, from the feature store to the files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_site import (
    PATHWAY_NAMES,
    site_study,
    tile_corners,
    write_model,
    write_small_site,
)

from client.explain.explain import explain_patients
from client.explain.layers import percentile_ranks
from client.predict.predict_command import predict_patients
from client.site.site_folder import load_policy
from common.commands.cli_output import Output
from common.errors import ConfigError

SILENT = Output(json_mode=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return write_small_site(tmp_path_factory.mktemp("small") / "hospital-a")


def explained(site: Path, folder: Path, patients: list[str], study):
    model = write_model(study, folder / "run")
    done = predict_patients(load_policy(site), study, model, patients)
    return done, explain_patients(done, folder / "out", output=SILENT)


def record(folder: Path, patient: str) -> dict:
    return json.loads((folder / "out" / patient / "prediction.json").read_text())


def test_attention_of_a_thinned_bag_lies_where_its_tiles_lie(site, tmp_path):
    study = site_study("moemil", max_tiles=13)
    done, _written = explained(site, tmp_path, ["P1"], study)
    batch = done.dataset.batch([done.dataset.patient_ids.index("P1")])
    with torch.no_grad():
        attention = done.model(batch).attention["tiles"][0].double().numpy()
    told = []
    for slide in ("P1_1", "P1_2"):
        text = (tmp_path / "out/P1" / f"tiles_{slide}.geojson").read_text()
        features = json.loads(text)["features"]
        corners = [f["geometry"]["coordinates"][0][0] for f in features]
        assert all(corner in tile_corners(20).tolist() for corner in corners)
        said = [f["properties"]["measurements"] for f in features]
        ranks = 100 * percentile_ranks(np.array([m["attention"] for m in said]))
        assert [m["attention percentile"] for m in said] == pytest.approx(ranks, abs=0.01)
        told += [m["attention"] for m in said]
    assert told == pytest.approx(attention.tolist())
    assert sum(told) == pytest.approx(1)
    assert record(tmp_path, "P1")["tokens_read"]["tiles"] == {"read": 13, "in_file": 40}


def test_tile_attributions_of_a_linear_model_add_up_to_pathology(site, tmp_path):
    _done, written = explained(site, tmp_path, ["P2"], site_study("linear"))
    found = record(tmp_path, "P2")["attribution"]
    features = json.loads((tmp_path / "out/P2/tiles_P2_1.geojson").read_text())["features"]
    for task, name in (
        ("response", "attribution to response"),
        ("survival", "attribution to risk"),
    ):
        total = sum(f["properties"]["measurements"][name] for f in features)
        assert total == pytest.approx(found[task]["contributions"]["pathology"], abs=1e-6)
        moved = found[task]["output"] - found[task]["baseline"]
        assert sum(found[task]["contributions"].values()) == pytest.approx(moved, rel=1e-2)
    names = {file.name for file in written["P2"].files}
    expected = {"prediction.json", "report.txt", "summary.png"}
    assert names == expected | {"tiles_P2_1.png", "tiles_P2_1.geojson"}
    assert all(file.is_file() for file in written["P2"].files)


def test_named_inputs_are_ranked(site, tmp_path):
    explained(site, tmp_path, ["P1"], site_study("linear"))
    strongest = record(tmp_path, "P1")["attribution"]["response"]["strongest"]
    assert {entry["input"] for entry in strongest["pathways"]} == set(PATHWAY_NAMES)
    sizes = [abs(entry["attribution"]) for entry in strongest["table"]]
    assert sizes == sorted(sizes, reverse=True)


def test_a_patient_without_slides_has_no_overlay_and_no_complaint(site, tmp_path):
    _done, written = explained(site, tmp_path, ["P4"], site_study("linear"))
    assert {f.name for f in written["P4"].files} == {"prediction.json", "report.txt", "summary.png"}
    assert written["P4"].notes == []
    told = record(tmp_path, "P4")
    assert told["why_missing"] == {
        "pathology": "nothing in the manifest",
        "genomics": "nothing in the manifest",
    }


def test_the_report_says_how_the_model_was_trained(site, tmp_path):
    explained(site, tmp_path, ["P4"], site_study("linear"))
    text = " ".join((tmp_path / "out/P4/report.txt").read_text().split())
    assert "mode local: epsilon at most 6 at delta 1e-05 over all rounds" in text
    assert "This hospital has no ledger" in text
    public = {"mode": "none"}
    explained(site, tmp_path, ["P4"], site_study("linear", privacy=public))
    text = (tmp_path / "out/P4/report.txt").read_text()
    assert "without differential privacy" in text
    assert "ledger" not in text


def test_a_second_explanation_replaces_the_first(site, tmp_path):
    explained(site, tmp_path, ["P2"], site_study("linear"))
    before = {f.name: f.read_bytes() for f in (tmp_path / "out/P2").iterdir()}
    explained(site, tmp_path, ["P2"], site_study("linear"))
    assert {f.name: f.read_bytes() for f in (tmp_path / "out/P2").iterdir()} == before
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["P2"]


def test_a_file_in_the_way_is_refused(site, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        explained(site, tmp_path, ["P4"], site_study("linear"))
