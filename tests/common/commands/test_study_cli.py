"""Study commands: a template that is valid, a digest that anybody can check, schemas that agree."""

import csv
import hashlib
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.cohort.manifest import read_manifest
from common.commands.schema_export import SCHEMAS, json_schema, write_schemas
from common.commands.study_cli import app
from common.commands.study_freeze import freeze, frozen_path, open_points
from common.errors import ConfigError, ManifestError
from common.study.study import Study
from common.study.subgroups import Subgroup

RUNNER = CliRunner()


def run(*arguments: str) -> dict[str, object]:
    result = RUNNER.invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    answer = json.loads(result.output)
    assert isinstance(answer, dict)
    return answer


def new_study(folder: Path, *options: str) -> Path:
    path = folder / "study.yaml"
    run("init", str(path), *options)
    return path


@pytest.mark.parametrize("mode", ["none", "local", "distributed"])
def test_the_template_is_valid_in_every_mode(tmp_path: Path, mode: str) -> None:
    path = new_study(tmp_path, "--mode", mode, "--site", "a", "--site", "b", "--site", "c")
    study = Study.from_yaml(path)
    assert study.privacy.mode == mode
    assert [site.site_id for site in study.sites] == ["a", "b", "c"]
    assert run("validate", str(path))["study_digest"] == study.digest()


def test_the_template_s_features_are_extractable(tmp_path: Path) -> None:
    """dim and params of the template fit the extractors (clinical; tiles needs weights)."""
    registry = pytest.importorskip("client.extract.kinds.extractor")
    spec = Study.from_yaml(new_study(tmp_path)).features["clinical"]
    assert registry.create_extractor("clinical", spec).kind == "clinical_table"


def test_init_refuses_to_overwrite_and_impossible_rosters(tmp_path: Path) -> None:
    path = new_study(tmp_path)
    before = path.read_text()
    with pytest.raises(ConfigError, match="exists already"):
        run("init", str(path))
    with pytest.raises(ConfigError, match="at least 3 sites"):
        run("init", str(tmp_path / "two.yaml"), "--site", "a", "--site", "b")
    assert not (tmp_path / "two.yaml").exists()
    run("init", str(path), "--force", "--study-id", "other")
    assert path.read_text() != before


def test_freeze_gives_the_digest_anybody_can_check(tmp_path: Path) -> None:
    path = new_study(tmp_path)
    answer = run("freeze", str(path))
    frozen = Path(str(answer["frozen"]))
    assert frozen == tmp_path / "study.frozen.json" == frozen_path(frozen)
    assert hashlib.sha256(frozen.read_bytes()).hexdigest() == answer["study_digest"]
    assert Study.from_yaml(frozen) == Study.from_yaml(path)
    assert run("show", str(frozen))["study_digest"] == answer["study_digest"]
    stamp = frozen.stat().st_mtime_ns
    assert run("freeze", str(path)) == answer
    assert frozen.stat().st_mtime_ns == stamp


def test_a_frozen_version_never_changes(tmp_path: Path) -> None:
    study = Study.from_yaml(new_study(tmp_path))
    path = tmp_path / "frozen.json"
    digest = freeze(study, path)
    changed = study.model_copy(update={"title": "other"})
    with pytest.raises(ConfigError, match="frozen with other contents") as caught:
        freeze(changed, path)
    assert "version: 2" in caught.value.cure
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert freeze(changed.model_copy(update={"version": 2}), path) != digest


def test_numbers_survive_freezing(tmp_path: Path) -> None:
    """YAML 1.1 would read the JSON number 1e-05 as text inside free parameters."""
    study = Study.from_yaml(new_study(tmp_path))
    model = study.model.model_copy(update={"options": {"small": 1e-5, "big": 1e22}})
    study = study.model_copy(update={"model": model})
    freeze(study, tmp_path / "s.json")
    assert Study.from_yaml(tmp_path / "s.json").digest() == study.digest()


def test_open_points_name_what_weakens_a_study(tmp_path: Path) -> None:
    study = Study.from_yaml(new_study(tmp_path, "--mode", "none"))
    text = "\n".join(open_points(study))
    for expected in ("features.tiles: no fingerprint", "privacy.mode none", "hazards"):
        assert expected in text


def test_subgroups_without_a_budget_are_an_open_point(tmp_path: Path) -> None:
    study = Study.from_yaml(new_study(tmp_path))
    sex = Subgroup.model_validate(
        {"column": "clinical_sex", "levels": {"female": ["f"], "male": ["m"]}}
    )
    assert "subgroup_epsilon" not in "".join(open_points(study))
    grouped = study.model_copy(update={"subgroups": {"sex": sex}})
    assert "subgroup_epsilon 0: no subgroup will be estimable" in "".join(open_points(grouped))


def test_unknown_keys_name_the_file_and_key(tmp_path: Path) -> None:
    path = new_study(tmp_path)
    path.write_text(path.read_text().replace("rounds: 100", "round: 100"))
    with pytest.raises(ConfigError, match=r"training\.round") as caught:
        run("validate", str(path))
    assert caught.value.where == str(path)


def test_show_is_readable(tmp_path: Path) -> None:
    path = new_study(tmp_path)
    result = RUNNER.invoke(app, ["show", str(path)], catch_exceptions=False)
    assert "patient-level epsilon 3, delta 1e-05" in result.output
    assert "clinical_table" in result.output
    # 3 sites, t = 1: two honest shares, so alone a site has mu sqrt(2): epsilon 3 becomes 4.5
    assert "t = 1 colluding" in result.output
    assert "epsilon 4.46 if the server and all others collude" in result.output


def test_help_has_an_example_for_every_command() -> None:
    for command in ("init", "validate", "schema", "freeze", "show"):
        text = RUNNER.invoke(app, [command, "--help"]).output
        assert f"Example: tumorboard study {command}" in " ".join(text.split())


def test_schemas_are_valid_json_schemas(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for path in write_schemas(tmp_path):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))
    assert len(list(tmp_path.glob("*.schema.json"))) == len(SCHEMAS) == 4
    with pytest.raises(ConfigError, match="no schema 'x'"):
        json_schema("x")


def test_the_study_schema_judges_as_the_contract_does(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load(new_study(tmp_path).read_text())
    validator = jsonschema.Draft202012Validator(json_schema("study"))
    assert validator.is_valid(data)
    assert not validator.is_valid({**data, "unknown": 1})
    assert not validator.is_valid({key: data[key] for key in data if key != "sites"})


@pytest.mark.parametrize(
    "text",
    [
        "patient_id,clinical_age,response,time,time_unit,event\np1,61,1,12.5,days,0\n",
        "patient_id\np1\n",
        "patient_id,time_months,event\np1,,\n",
        "patient_id,response\np1,2\n",
        "patient_id,colour\np1,red\n",
        "patient_id,time,event\np1,3,1\n",
        "patient_id,time_months\np1,3\n",
        "patient_id,time,time_unit,time_months,event\np1,3,days,,1\n",
        "patient_id,time,time_unit,event\np1,3,weeks,1\n",
        "patient_id\n../p1\n",
        "clinical_age\n61\n",
    ],
)
def test_the_manifest_schema_judges_as_the_reader_does(tmp_path: Path, text: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    (tmp_path / "m.csv").write_text(text)
    try:
        read_manifest(tmp_path / "m.csv")
    except ManifestError:
        good = False
    else:
        good = True
    (row,) = csv.DictReader(io.StringIO(text))
    assert jsonschema.Draft202012Validator(json_schema("manifest-row")).is_valid(row) is good
