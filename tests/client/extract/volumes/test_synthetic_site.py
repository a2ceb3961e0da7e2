"""A synthetic hospital that keeps DICOM extracts the same features as one that keeps NIfTI."""

from typing import Any

import numpy as np
import pytest

from client.extract.volumes.radiomics import RadiomicsExtractor
from client.extract.volumes.slices import SlicesExtractor
from common.cohort.manifest import PatientRow
from common.study.study import ExtractorSpec, FeatureSpec
from simulations.synthetic.dicom_masks import write_rtstruct, write_seg
from simulations.synthetic.dicom_series import SeriesIdentity, write_series
from simulations.synthetic.nifti_volume import write_nifti
from simulations.synthetic.phantom import SPACING_MM, draw_lesion, render_head
from simulations.synthetic.site_shift import draw_shift

pytest.importorskip("SimpleITK")
PARAMS: dict[str, Any] = {
    "sequences": ["t1"],
    "preprocess": {"n4": {"iterations": [5], "max_voxels": 3000}},
}


def spec(kind: str, dim: int) -> FeatureSpec:
    extractor = ExtractorSpec(kind=kind, params=PARAMS)
    return FeatureSpec(modality="radiology", dim=dim, max_tokens=5, extractor=extractor)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PatientRow]:
    folder = tmp_path_factory.mktemp("site")
    generator = np.random.default_rng(11)
    lesion = draw_lesion(0.4, generator)
    shift = draw_shift(3, "north", 1.0)
    scan = render_head(lesion, shape=(20, 96, 96), shift=shift, generator=generator)
    identity = SeriesIdentity("north", "p1", "t1", 1)
    series = write_series(
        folder / "t1", np.ascontiguousarray(scan.volumes["t1"]), SPACING_MM, identity
    )
    write_rtstruct(folder / "rs.dcm", scan.mask, series, identity)
    write_seg(folder / "seg.dcm", scan.mask, series, identity)
    write_nifti(folder / "t1.nii.gz", scan.volumes["t1"], SPACING_MM)
    write_nifti(folder / "mask.nii.gz", scan.mask, SPACING_MM)
    files = {
        "nifti": (folder / "t1.nii.gz", folder / "mask.nii.gz"),
        "rtstruct": (folder / "t1", folder / "rs.dcm"),
        "seg": (folder / "t1", folder / "seg.dcm"),
    }
    return {
        name: PatientRow(patient_id="p1", volumes={"t1": volume}, masks={"t1": mask})
        for name, (volume, mask) in files.items()
    }


def test_radiomics(rows: dict[str, PatientRow]) -> None:
    extractor = RadiomicsExtractor("radiomics", spec("radiomics", 108))
    files = {name: extractor.extract(row) for name, row in rows.items()}
    for name in ("rtstruct", "seg"):
        volume = float(files[name].attrs["volume_ml_t1"])
        assert volume == pytest.approx(float(files["nifti"].attrs["volume_ml_t1"]), rel=0.02)
        assert np.allclose(files[name].features, files["nifti"].features, rtol=1e-3, atol=1e-3)


def test_slices(rows: dict[str, PatientRow]) -> None:
    extractor = SlicesExtractor("slices", spec("slices", 1280))
    pictures = {name: extractor.images(row)[0].astype(int) for name, row in rows.items()}
    for name in ("rtstruct", "seg"):
        assert np.abs(pictures[name] - pictures["nifti"]).max() <= 1
