"""The registry of extractors: lazy, and clear about what it does not know."""

import importlib
import subprocess
import sys

import pytest

from client.extract.kinds.extractor import fingerprint_of
from client.extract.kinds.registry import create_extractor, kinds, register
from common.errors import ConfigError
from common.study.extractor_kinds import extractor_kinds
from common.study.study import ExtractorSpec, FeatureSpec


def test_importing_the_registry_imports_nothing_heavy() -> None:
    code = (
        "import sys, client.extract.kinds.registry;"
        "heavy = {'torch', 'openslide', 'SimpleITK', 'onnxruntime', 'cv2', 'radiomics', 'pandas'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_kind_can_be_imported_and_bears_its_name() -> None:
    for kind, location in kinds().items():
        module, _, name = location.partition(":")
        assert getattr(importlib.import_module(module), name).kind == kind


def test_a_study_may_name_exactly_what_is_here() -> None:
    assert set(extractor_kinds()) == set(kinds())


def test_unknown_kind_and_missing_extractor_are_named() -> None:
    unknown = FeatureSpec(modality="clinical", dim=3, extractor=ExtractorSpec(kind="tilez"))
    with pytest.raises(ConfigError, match="unknown extractor kind 'tilez'") as caught:
        create_extractor("f", unknown)
    assert "radiomics" in caught.value.cure
    assert caught.value.where == "features.f.extractor.kind"
    with pytest.raises(ConfigError, match="names no extractor"):
        create_extractor("f", FeatureSpec(modality="clinical", dim=3))
    with pytest.raises(ValueError, match="must read"):
        register("x", "no colon")


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
