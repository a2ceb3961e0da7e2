"""Studies that promise the impossible, or that no hospital could run, are refused with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from common.commands.study_cli import app
from common.errors import ConfigError, TumorboardError
from common.study.study import Study

HERE = "where.yaml"


def study_data(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "study.yaml"
    assert (
        CliRunner().invoke(app, ["init", str(path), "--force"], catch_exceptions=False).exit_code
        == 0
    )
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def with_value(data: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    inner = data
    *path, last = key.split(".")
    for part in path:
        inner = inner[part]
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("privacy.colluders", 0, "every site knows its own share"),
        ("privacy.colluders", 5, "colluders are too many for 3 sites"),
        ("privacy.n_min", 2, "more than .N . t./2 sites must agree"),
        ("privacy.n_min", 9, "more than .N . t./2 sites must agree"),
        ("privacy.epsilon", 1e6, "less than or equal to 500"),
        ("privacy.delta", 0.009, "above 1 / .10 training.nominal_patients."),
        ("endpoints.survival.hazards", [0.1, 2.0, 0.1, 0.1, 0.1], "above 0 and below 1"),
        ("endpoints.survival.horizons_months", [-3.0], "above 0 and increase"),
        ("sites", [{"site_id": s, "public_key": "zz"} for s in "abc"], "public_key"),
    ],
)
def test_what_no_hospital_could_promise_is_refused(
    tmp_path: Path, key: str, value: object, reason: str
) -> None:
    data = study_data(tmp_path)
    Study.from_mapping(data, where=HERE)
    with pytest.raises(ConfigError, match=reason):
        Study.from_mapping(with_value(data, key, value), where=HERE)


def test_a_large_delta_is_no_matter_without_a_promise(tmp_path: Path) -> None:
    data = with_value(study_data(tmp_path), "privacy.delta", 0.009)
    assert Study.from_mapping(with_value(data, "privacy.mode", "none"), where=HERE)


@pytest.mark.parametrize("command", ["validate", "freeze"])
@pytest.mark.parametrize("model", [{"name": "nosuch"}, {"name": "linear", "options": {"no": 1}}])
def test_a_model_that_cannot_be_built_is_refused(
    tmp_path: Path, command: str, model: dict[str, object]
) -> None:
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(with_value(study_data(tmp_path), "model", model)))
    with pytest.raises(TumorboardError, match=r"nosuch|no: unknown key"):
        CliRunner().invoke(app, [command, str(path)], catch_exceptions=False)
    assert not (tmp_path / "changed.frozen.json").exists()


@pytest.mark.parametrize("command", ["validate", "freeze"])
def test_an_extractor_that_no_hospital_has_is_refused(tmp_path: Path, command: str) -> None:
    path, data = tmp_path / "changed.yaml", study_data(tmp_path)
    name = next(name for name, spec in data["features"].items() if spec.get("extractor"))
    path.write_text(yaml.safe_dump(with_value(data, f"features.{name}.extractor.kind", "tile")))
    with pytest.raises(ConfigError, match="unknown extractor kind 'tile'") as caught:
        CliRunner().invoke(app, [command, str(path)], catch_exceptions=False)
    assert caught.value.where == f"features.{name}.extractor.kind"
    assert "did you mean 'tiles'?" in caught.value.cure
    assert caught.value.why
    assert not (tmp_path / "changed.frozen.json").exists()


@pytest.mark.parametrize("patterns", [["*"], ["**"], ["pathology.*", "*.*"], ["*[a-z]*"]])
def test_a_study_that_shares_nothing_is_refused(tmp_path: Path, patterns: list[str]) -> None:
    path, data = tmp_path / "changed.yaml", study_data(tmp_path)
    data["privacy"]["mode"] = "none"
    data["training"]["local"] = {"kind": "epochs"}
    path.write_text(yaml.safe_dump(with_value(data, "training.stay_local", ["heads.*_bias"])))
    assert CliRunner().invoke(app, ["validate", str(path)]).exit_code == 0
    path.write_text(yaml.safe_dump(with_value(data, "training.stay_local", patterns)))
    with pytest.raises(ConfigError, match=r"share|stays with its site"):
        CliRunner().invoke(app, ["validate", str(path)], catch_exceptions=False)


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    """YAML and JSON readers take the last one in silence; a reviewer may have read the first."""
    text = yaml.safe_dump(study_data(tmp_path))
    twice = tmp_path / "twice.yaml"
    twice.write_text(text + "privacy: {mode: none}\n")
    with pytest.raises(ConfigError) as caught:
        Study.from_yaml(twice)
    assert "'privacy' is written twice" in caught.value.why
    nested = tmp_path / "nested.json"
    nested.write_text(
        json.dumps(study_data(tmp_path)).replace('"epsilon": 3.0', '"epsilon": 3.0, "epsilon": 9.0')
    )
    with pytest.raises(ConfigError) as caught:
        Study.from_yaml(nested)
    assert "'epsilon' is written twice" in caught.value.why


def test_problems_are_told_in_plain_words(tmp_path: Path) -> None:
    data = with_value(study_data(tmp_path), "training.round", 3)
    with pytest.raises(ConfigError, match=r"training\.round: unknown key"):
        Study.from_mapping(data, where=HERE)
    data = with_value(study_data(tmp_path), "privacy.colluders", 0)
    with pytest.raises(ConfigError) as caught:
        Study.from_mapping(data, where=HERE)
    assert "Value error" not in caught.value.what
    assert "'clip'" not in caught.value.what
