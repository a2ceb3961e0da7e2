from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from client.extract.kinds.extractor import create_extractor
from client.extract.volumes import sequence_volumes
from client.extract.volumes.radiomics import RadiomicsExtractor, feature_names, radiomic_features
from common.cohort.features_h5 import read_features, write_features
from common.cohort.manifest import PatientRow
from common.errors import ConfigError, ErrorCode, ExtractionError
from common.study.study import ExtractorSpec, FeatureSpec

sitk = pytest.importorskip("SimpleITK")
PARAMS = {"sequences": ["t1", "t2", "t1c"], "preprocess": {"n4": None}}


def spec(dim: int = 110, tokens: int = 3, **params: Any) -> FeatureSpec:
    return FeatureSpec(
        modality="radiology",
        dim=dim,
        max_tokens=tokens,
        extractor=ExtractorSpec(kind="radiomics", params={**PARAMS, **params}),
    )


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, phantom: Any) -> PatientRow:
    folder = tmp_path_factory.mktemp("patient")
    for number, name in enumerate(("t1", "t2", "t1c")):
        shifted = sitk.Cast(phantom.image, sitk.sitkFloat32) * (1 + 0.5 * number)
        sitk.WriteImage(shifted, str(folder / f"{name}.nii.gz"))
        sitk.WriteImage(phantom.mask, str(folder / f"{name}_mask.nii.gz"))
    names = ("t1", "t2", "t1c")
    return PatientRow(
        patient_id="p1",
        volumes={name: folder / f"{name}.nii.gz" for name in names},
        masks={name: folder / f"{name}_mask.nii.gz" for name in names},
    )


def without(row: PatientRow, *names: str, masks_only: bool = False) -> PatientRow:
    kept = {k: v for k, v in row.volumes.items() if masks_only or k not in names}
    masks = {k: v for k, v in row.masks.items() if k not in names}
    return row.model_copy(update={"volumes": kept, "masks": masks})


def test_one_token_a_sequence(patient: PatientRow, tmp_path: Path) -> None:
    extractor = create_extractor("radiomics", spec())
    file = extractor.extract(patient)
    names = feature_names(PARAMS)
    assert file.features.shape == (3, 110)
    assert names[107:] == ["sequence_t1", "sequence_t2", "sequence_t1c"]
    assert (file.features[:, 107:] == np.eye(3)).all()
    counts = {kind: sum(f"_{kind}_" in n for n in names) for kind in ("shape", "firstorder")}
    assert counts == {"shape": 14, "firstorder": 18}
    write_features(tmp_path / "p1.h5", file)
    assert (read_features(tmp_path / "p1.h5").features == file.features).all()


def test_values_are_what_they_are_called(patient: PatientRow, phantom: Any) -> None:
    extractor = RadiomicsExtractor("r", spec(preprocess={"n4": None, "spacing_mm": None}))
    token = dict(zip(feature_names(PARAMS), extractor.extract(patient).features[0], strict=True))
    assert token["original_shape_VoxelVolume"] == pytest.approx(phantom.volume_ml * 1000, rel=1e-4)
    assert token["original_firstorder_Mean"] == pytest.approx(
        token["original_firstorder_Median"], abs=20
    )
    assert token["original_shape_MajorAxisLength"] == pytest.approx(28 * 0.94, rel=0.1)


def test_scaling_of_intensities_does_not_matter_after_zscore(patient: PatientRow) -> None:
    tokens = RadiomicsExtractor("r", spec()).extract(patient).features[:, :107]
    assert np.allclose(tokens[0], tokens[1], rtol=2e-2, atol=1e-3)


def test_missing_sequences_leave_no_token(patient: PatientRow) -> None:
    extractor = RadiomicsExtractor("r", spec())
    row = without(patient, "t2")
    file = extractor.extract(row)
    assert file.features.shape == (2, 110)
    assert file.features[:, 107:].argmax(axis=1).tolist() == [0, 2]
    assert extractor.inputs(row) == [
        row.volumes["t1"], row.volumes["t1c"], row.masks["t1"], row.masks["t1c"]
    ]  # fmt: skip
    nothing = without(patient, "t1", "t2", "t1c")
    assert extractor.inputs(nothing) == []
    assert extractor.values(nothing) == {}
    with pytest.raises(ExtractionError, match="none of the sequences"):
        extractor.extract(nothing)


def test_volume_without_mask_and_shared_mask(patient: PatientRow) -> None:
    row = without(patient, "t2", "t1", masks_only=True)
    with pytest.raises(ExtractionError, match="'t1' has no mask"):
        RadiomicsExtractor("r", spec()).extract(row)
    shared = RadiomicsExtractor("r", spec(shared_mask="t1c")).extract(row)
    own = RadiomicsExtractor("r", spec()).extract(patient)
    assert np.allclose(shared.features, own.features)


def test_swapping_two_sequences_is_noticed(patient: PatientRow) -> None:
    """Only names change, not files: what the runner compares must change with them."""
    extractor = RadiomicsExtractor("r", spec())
    row = without(patient, "t1", "t2")
    renamed = row.model_copy(
        update={"volumes": {"t2": row.volumes["t1c"]}, "masks": {"t2": row.masks["t1c"]}}
    )
    assert extractor.inputs(row) == extractor.inputs(renamed)
    assert extractor.values(row) == {"volumes": ["t1c"], "masks": ["t1c"]}
    assert extractor.values(renamed) == {"volumes": ["t2"], "masks": ["t2"]}


def test_wrong_width_names_the_right_one() -> None:
    with pytest.raises(ConfigError) as error:
        RadiomicsExtractor("r", spec(dim=107))
    assert "dim: 110" in error.value.cure
    with pytest.raises(ConfigError):
        RadiomicsExtractor("r", spec(tokens=2))


@pytest.mark.parametrize(
    "params",
    [
        {"sequences": []},
        {"bins": 32},
        {"preprocess": {"spacing": 2}},
        {"settings": {"flair": "mr"}},
        {"settings": {"t1": "no_such_file"}},
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RadiomicsExtractor("r", spec(**params))


def test_sequence_named_twice() -> None:
    with pytest.raises(ConfigError, match="named twice"):
        RadiomicsExtractor("r", spec(dim=109, sequences=["t1", "t1"]))


def test_fingerprint_follows_the_content_of_the_parameter_file(tmp_path: Path) -> None:
    built_in = Path(sequence_volumes.__file__).with_name("params") / "mr.yaml"
    copy = tmp_path / "copy.yaml"
    copy.write_text(built_in.read_text())
    settings = {name: str(copy) for name in PARAMS["sequences"]}
    plain = RadiomicsExtractor("r", spec()).fingerprint
    assert RadiomicsExtractor("other", spec(settings=settings)).fingerprint == plain
    content = yaml.safe_load(built_in.read_text())
    content["pyradiomics"]["setting"]["binWidth"] = 7
    copy.write_text(yaml.safe_dump(content))
    changed = RadiomicsExtractor("r", spec(settings=settings)).fingerprint
    others = [
        RadiomicsExtractor("r", spec(**params)).fingerprint
        for params in ({"roi": "GTV-1"}, {"transform": "signed_log"}, {"preprocess": {}})
    ]
    assert len({plain, changed, *others}) == 5


def test_pyradiomics_parameters_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("pyradiomics: {setting: {binWidht: 5}}")
    with pytest.raises(ConfigError, match="PyRadiomics refuses its parameters"):
        RadiomicsExtractor("r", spec(settings={"t1": str(path)}))


def test_signed_log_is_applied_to_features_only(patient: PatientRow) -> None:
    plain = RadiomicsExtractor("r", spec()).extract(patient).features
    logs = RadiomicsExtractor("r", spec(transform="signed_log")).extract(patient).features
    values = plain[:, :107].astype(np.float64)
    assert np.allclose(logs[:, :107], np.sign(values) * np.log1p(np.abs(values)), rtol=1e-5)
    assert (logs[:, 107:] == np.eye(3)).all()


def test_region_too_small_or_uniform() -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(9, 9, 9)))
    one = np.zeros((9, 9, 9), np.uint8)
    one[4, 4, 4] = 1
    mask = sitk.GetImageFromArray(one)
    with pytest.raises(ExtractionError, match="PyRadiomics refuses"):
        radiomic_features(image, mask, {"setting": {"minimumROIDimensions": 2}})


def test_features_that_are_not_finite_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from client.extract.volumes import radiomics

    class Broken:
        def execute(self, *_: object) -> dict[str, float]:
            return {"original_a": 1.0, "original_b": float("nan"), "diagnostics_c": float("nan")}

    monkeypatch.setattr(radiomics, "_pyradiomics", lambda _: Broken())
    with pytest.raises(ExtractionError, match=r"1 radiomics features.*original_b") as error:
        radiomic_features(None, None, {})
    assert error.value.code == ErrorCode.FEATURE_NOT_FINITE


def test_broken_file_names_the_sequence(patient: PatientRow, tmp_path: Path) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"broken")
    row = patient.model_copy(update={"volumes": {**patient.volumes, "t2": tmp_path / "bad.nii.gz"}})
    with pytest.raises(ExtractionError) as error:
        RadiomicsExtractor("r", spec()).extract(row)
    assert "sequence 't2'" in error.value.where
    assert "bad.nii.gz" in error.value.where
