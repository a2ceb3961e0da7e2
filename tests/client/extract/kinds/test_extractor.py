"""Extractors by kind: imported when needed, and clear about what there is not."""

import inspect
import subprocess
import sys

import pytest

from client.extract.kinds.extractor import Extractor, create_extractor, fingerprint_of
from common.contract import Contract
from common.errors import ConfigError
from common.study.catalogue import EXTRACTORS
from common.study.study import ExtractorSpec, FeatureSpec


def test_importing_the_registry_imports_nothing_heavy() -> None:
    code = (
        "import sys, client.extract.kinds.extractor;"
        "heavy = {'torch', 'openslide', 'SimpleITK', 'onnxruntime', 'cv2', 'radiomics', 'pandas'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_kind_can_be_imported_and_bears_its_name() -> None:
    assert [entry.load().kind for entry in EXTRACTORS] == [entry.name for entry in EXTRACTORS]


def test_unknown_kind_and_missing_extractor_are_named() -> None:
    unknown = FeatureSpec(modality="clinical", dim=3, extractor=ExtractorSpec(kind="tilez"))
    with pytest.raises(ConfigError, match="unknown extractor kind 'tilez'") as caught:
        create_extractor("f", unknown)
    assert "radiomics" in caught.value.cure
    assert caught.value.where == "features.f.extractor.kind"
    with pytest.raises(ConfigError, match="names no extractor"):
        create_extractor("f", FeatureSpec(modality="clinical", dim=3))


def test_fingerprint_depends_on_each_part() -> None:
    prints = {
        fingerprint_of("a", {"x": 1}, code_version=1),
        fingerprint_of("b", {"x": 1}, code_version=1),
        fingerprint_of("a", {"x": 2}, code_version=1),
        fingerprint_of("a", {"x": 1}, code_version=2),
        fingerprint_of("a", {"x": 1}, code_version=1, weights={"net": "00"}),
    }
    assert len(prints) == 5
    assert fingerprint_of("a", {"x": 1, "y": 2}, code_version=1) == fingerprint_of(
        "a", {"y": 2, "x": 1}, code_version=1
    )


@pytest.mark.parametrize("entry", list(EXTRACTORS), ids=lambda entry: entry.name)
def test_every_kind_follows_the_interface(entry) -> None:
    kind = entry.load()
    assert issubclass(kind, Extractor)
    assert issubclass(kind.params_class, Contract)
    assert kind.params_class is not Contract
    for method in ("inputs", "values", "extract"):
        assert list(inspect.signature(getattr(kind, method)).parameters) == ["self", "row"]
    reads = {kind.inputs, kind.values} - {Extractor.inputs, Extractor.values}
    assert reads, "it reads neither files nor values"
    with pytest.raises(ConfigError, match=r"features\.f\.extractor\.params"):
        create_extractor("f", spec_with(entry.name, {"nonsense": 1}))


def spec_with(kind, params) -> FeatureSpec:
    return FeatureSpec(
        modality="clinical", dim=3, extractor=ExtractorSpec(kind=kind, params=params)
    )
