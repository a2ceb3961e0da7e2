"""A public file gets a card, the study takes it up, and hospitals read it before they consent."""

import json
import shutil

import pytest
from random_patients import SMALL_MODELS, make_study, random_model
from typer.testing import CliRunner
from weights_files import write_weights

from common.commands.study_cli import app as study_app
from common.commands.weights_cli import app
from common.contract import canonical_json, sha256_hex
from common.errors import ConfigError, PrivacyError
from common.study.study import Study
from common.trust.secret_file import create_signing_key
from common.trust.signature import public_half

PRIVATE = {"mode": "local", "epsilon": 3.0, "evaluation": {"release": "dp"}}
SOURCE = ["--public", "foundation on TCGA slides", "--licence", "CC BY 4.0"]


def call(group, *words):
    told = CliRunner().invoke(group, [*map(str, words), "--json"], catch_exceptions=False)
    return told.exit_code, json.loads(told.output)


@pytest.fixture
def case(tmp_path):
    """A study that begins with a file, the file, and the key of its first hospital."""
    key = create_signing_key(tmp_path / "identity.key")
    start = random_model(make_study("foundation", **SMALL_MODELS["foundation"]))
    file, digest = write_weights(start, tmp_path / "start.safetensors")
    options = {"weights": str(file), "sha256": digest, "lora_rank": 2}
    keys = make_study("foundation", **SMALL_MODELS["foundation"], **options).model_dump()
    sites = [{"site_id": "a", "public_key": public_half(key)}, {"site_id": "b"}]
    study = Study.model_validate(keys | {"privacy": PRIVATE, "sites": sites})
    path = tmp_path / "study.json"
    path.write_text(canonical_json(study.model_dump(mode="json")))
    return path, file


def test_a_public_start_is_carded_frozen_and_shown(case):
    study, file = case
    with pytest.raises(PrivacyError, match="have no card"):
        call(study_app, "validate", study)
    with pytest.raises(PrivacyError, match="no card: the origin of the weights is unknown"):
        call(app, "show", file)
    status, told = call(app, "card", file, *SOURCE, "--key", file.parent / "identity.key")
    digest = sha256_hex(file.read_bytes())
    assert (status, told["card"]["sha256"]) == (0, digest)
    status, told = call(app, "show", file)
    assert (status, told["origin"], told["card"]["sha256"]) == (0, "public", digest)
    frozen = call(study_app, "freeze", study)[1]["frozen"]
    shutil.move(file.with_name("start.safetensors.card.json"), file.parent / "lost")
    assert call(study_app, "validate", frozen)[0] == 0  # the study has the card
    told = CliRunner().invoke(study_app, ["show", frozen]).output
    assert "are public: foundation on TCGA slides (CC BY 4.0); says a, 20" in told


@pytest.mark.parametrize("what", ["file", "card"])
def test_a_changed_byte_is_seen(case, what):
    _, file = case
    call(app, "card", file, *SOURCE, "--key", file.parent / "identity.key")
    changed = file if what == "file" else file.with_name(f"{file.name}.card.json")
    data = changed.read_bytes()
    changed.write_bytes(data[:-1] + b"\0" if what == "file" else data.replace(b"TCGA", b"TCIA"))
    with pytest.raises(PrivacyError, match="the card is false") as caught:
        call(app, "show", file)
    assert caught.value.why == "it was altered" or what == "file"


def test_a_file_in_parts_has_the_digest_of_all(tmp_path):
    key = create_signing_key(tmp_path / "identity.key")
    parts = [tmp_path / "uni.onnx", tmp_path / "uni.onnx.data"]
    for part in parts:
        part.write_bytes(part.name.encode())
    told = call(app, "card", *parts, *SOURCE, "--key", tmp_path / "identity.key")[1]
    assert told["card"]["sha256"] == sha256_hex(b"uni.onnxuni.onnx.data")
    assert told["maker"] == public_half(key)
    assert call(app, "show", *parts)[0] == 0
    with pytest.raises(PrivacyError, match="the card is false"):
        call(app, "show", parts[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing", *SOURCE, "--key", "identity.key"], "weights file cannot be read"),
        (["start.safetensors", *SOURCE, "--key", "none"], "key that signs the card cannot be read"),
        (
            [
                "start.safetensors",
                "--public",
                "\x1b[1m",
                "--licence",
                "MIT",
                "--key",
                "identity.key",
            ],
            "printable words",
        ),
    ],
)
def test_wrong_input_gives_one_message(case, words, said, monkeypatch):
    monkeypatch.chdir(case[1].parent)
    with pytest.raises(ConfigError, match=said):
        call(app, "card", *words)


def test_an_encoder_of_unknown_origin_is_refused(tmp_path, monkeypatch):
    """Its ONNX file is a hospital's own copy, and could have seen the hospital's patients."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "tumorboard/weights"
    folder.mkdir(parents=True)
    (folder / "uni.onnx").write_bytes(b"onnx")
    key = create_signing_key(tmp_path / "identity.key")
    params = {"encoder": "uni", "sha256": sha256_hex(b"onnx")}
    keys = make_study("linear").model_dump(mode="json") | {"privacy": PRIVATE}
    keys["features"]["tiles"] |= {"extractor": {"kind": "tiles", "params": params}, "dim": 1024}
    keys["weights"] = {"makers": [public_half(key)]}
    path = tmp_path / "study.json"
    path.write_text(json.dumps(keys))
    with pytest.raises(PrivacyError, match=r"uni.onnx. have no card in the study"):
        call(study_app, "validate", path)
    call(app, "card", folder / "uni.onnx", *SOURCE, "--key", tmp_path / "identity.key")
    assert call(study_app, "validate", path)[0] == 0


def test_an_encoder_without_a_digest_is_refused(tmp_path):
    keys = make_study("linear").model_dump(mode="json") | {"privacy": PRIVATE}
    keys["features"]["tiles"] |= {"extractor": {"kind": "tiles", "params": {"encoder": "uni"}}}
    path = tmp_path / "study.json"
    path.write_text(json.dumps(keys))
    with pytest.raises(PrivacyError, match="'uni' is named without the SHA-256"):
        call(study_app, "validate", path)
