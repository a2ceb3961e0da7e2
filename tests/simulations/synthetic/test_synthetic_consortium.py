import hashlib
import json
import shutil

import highdicom
import numpy as np
import openslide
import pandas as pd
import pydicom
import pytest
import SimpleITK
from matplotlib.path import Path as Outline

from client.extract.genomics.pathway_params import read_gene_sets
from client.extract.volumes.volume_reader import read_mask, read_volume
from common.cohort.manifest import read_manifest
from common.errors import ConfigError, ExtractionError
from common.study.site_policy import SitePolicy
from common.study.study import Study
from simulations.synthetic.cohort import draw_cohort
from simulations.synthetic.consortium import adopt_study, write_consortium
from simulations.synthetic.expression import PATHWAYS, transcriptome
from simulations.synthetic.oracle import oracle_metrics, read_truth
from simulations.synthetic.patient_files import mask_kind
from simulations.synthetic.spec import demo_spec
from simulations.synthetic.study_template import demo_study


def small_spec(**changes):
    spec = demo_spec(patients=5, seed=11)
    return spec.model_copy(update={"slide_side_px": 512, **changes})


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_consortium(tmp_path_factory.mktemp("consortium"), small_spec(), workers=1)


@pytest.fixture(scope="module")
def manifests(written):
    return {site: read_manifest(home / "manifest.csv") for site, home in written.sites.items()}


def test_bytes_do_not_depend_on_workers(written, tmp_path):
    again = write_consortium(tmp_path / "again", small_spec(), workers=2)
    one, two = digests(written.folder), digests(again.folder)
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def test_a_complete_consortium_is_taken_as_it_is(written):
    before = {path: path.stat().st_mtime_ns for path in written.folder.rglob("*")}
    write_consortium(written.folder, small_spec(), workers=1)
    assert {path: path.stat().st_mtime_ns for path in written.folder.rglob("*")} == before


def test_an_interrupted_one_is_written_again(written, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(written.folder, folder)
    stamp = folder / "consortium.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"complete": False}))
    (folder / "truth" / "truth.parquet").unlink()
    next((folder / "sites").rglob("*.tif")).write_bytes(b"half")
    write_consortium(folder, small_spec(), workers=1)
    assert digests(folder) == digests(written.folder)


def test_a_folder_with_something_else_is_refused(written, tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(ConfigError, match="something else"):
        write_consortium(tmp_path, small_spec(), workers=1)
    with pytest.raises(ConfigError, match="something else"):
        write_consortium(written.folder, small_spec(seed=12), workers=1)
    assert (tmp_path / "thesis.docx").read_text() == "years of work"


def test_manifests_hold_the_cohort_with_its_gaps(written, manifests):
    for site in written.spec.sites:
        cohort, manifest = draw_cohort(written.spec, site), manifests[site.site_id]
        assert manifest.patient_ids == cohort.patient_ids
        for index, row in enumerate(manifest.rows):
            for modality in ("pathology", "radiology", "genomics", "clinical"):
                assert row.has_raw(modality) == cohort.has(modality)[index], modality
            known = cohort.time_months[index]
            if np.isnan(known):
                assert row.time_months is None
            else:
                assert row.time_months == pytest.approx(known, abs=0.02)  # days are whole
                assert row.event == cohort.event[index]


def test_slides_open_with_the_resolution_of_the_site(written, manifests):
    for site in written.spec.sites:
        slides = [path for row in manifests[site.site_id].rows for path in row.slides]
        assert slides
        for path in slides:
            with openslide.OpenSlide(path) as slide:
                assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(site.um_per_px)
                assert slide.level_count == 2


def test_nifti_masks_fit_their_volumes(manifests):
    rows = [row for row in manifests["synthetic-alder"].rows if row.volumes]
    assert rows
    for row in rows:
        for name, path in row.volumes.items():
            volume = read_volume(path)
            assert read_mask(row.masks[name], volume).volume_ml > 1


def original(written, row):
    path = written.folder / "truth" / "synthetic-birch" / f"{row.patient_id}_tumour.nii.gz"
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) > 0


def dicom_rows(manifests, kind):
    rows = manifests["synthetic-birch"].rows
    found = [row for i, row in enumerate(rows) if row.volumes and mask_kind(i) == kind]
    assert found
    return found


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_dicom_masks_equal_their_originals(written, manifests, kind):
    for row in dicom_rows(manifests, kind):
        truth = original(written, row)
        for name, path in row.masks.items():
            read = read_mask(path, read_volume(row.volumes[name])).array
            assert abs(int(read.sum()) - int(truth.sum())) <= 0.02 * truth.sum()
            assert np.array_equal(read, truth)


def test_contours_enclose_the_tumour_by_an_independent_fill(written, manifests):
    row = dicom_rows(manifests, "rtstruct")[0]
    truth = original(written, row)
    dataset = pydicom.dcmread(row.masks["t1c"])
    slices = [pydicom.dcmread(path) for path in sorted(row.volumes["t1c"].iterdir())]
    by_uid = {image.SOPInstanceUID: index for index, image in enumerate(slices)}
    filled = np.zeros_like(truth)
    rows, columns = np.mgrid[: truth.shape[1], : truth.shape[2]]
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        index = by_uid[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        image = slices[index]
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        assert np.allclose(points[:, 2], float(image.ImagePositionPatient[2]))
        x = float(image.ImagePositionPatient[0]) + columns * float(image.PixelSpacing[1])
        y = float(image.ImagePositionPatient[1]) + rows * float(image.PixelSpacing[0])
        inside = Outline(points[:, :2]).contains_points(np.stack([x.ravel(), y.ravel()], axis=1))
        filled[index] |= inside.reshape(truth.shape[1:])
    assert np.array_equal(filled, truth)


def test_segmentations_are_valid_for_an_independent_reader(written, manifests):
    row = dicom_rows(manifests, "seg")[0]
    seg = highdicom.seg.segread(row.masks["t2"])
    series = {str(item.SeriesInstanceUID) for item in seg.ReferencedSeriesSequence}
    image = pydicom.dcmread(next(row.volumes["t2"].iterdir()))
    assert series == {str(image.SeriesInstanceUID)}
    assert int(seg.pixel_array.sum()) == int(original(written, row).sum())


def test_dicom_headers_name_nobody(manifests):
    row = dicom_rows(manifests, "seg")[0]
    for path in [*row.volumes["t1"].iterdir(), *row.masks.values()]:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert "SYNTHETIC" in str(header.PatientName)
        assert header.PatientIdentityRemoved == "YES"


def test_rna_is_on_the_declared_scale_and_covers_the_gene_sets(written):
    sets = read_gene_sets(written.gene_sets)
    assert list(sets) == list(PATHWAYS)
    table = pd.read_csv(written.sites["synthetic-alder"] / "rna.csv", index_col=0)
    assert {gene for genes in sets.values() for gene in genes} <= set(table.columns)
    assert table.shape[1] == 400
    assert table.to_numpy().min() >= np.log2(0.001) - 1e-4
    assert table.to_numpy().max() < 16.7
    reference = pd.read_csv(written.gene_reference).set_index("gene")
    assert list(reference.index) == transcriptome().genes
    assert not (written.sites["synthetic-birch"] / "rna.csv").exists()


def test_the_truth_stays_out_of_the_hospitals(written):
    assert read_truth(written.folder)["patient_id"].is_unique
    names = {path.name for home in written.sites.values() for path in home.rglob("*")}
    assert not {name for name in names if "truth" in name}
    found = oracle_metrics(written.folder, ["synthetic-alder-0001"])
    assert found["n"] == 1
    assert found["response_auc"] is None


@pytest.mark.parametrize("mode", ["none", "local", "distributed"])
def test_every_hospital_approves_the_study_as_it_is_read_back(written, mode):
    path = adopt_study(written, demo_study(written.spec, mode))
    study = Study.from_yaml(path)
    for home in written.sites.values():
        policy = SitePolicy.from_yaml(home / "site.yaml")
        approval = policy.approval_of(study.digest())
        assert approval is not None
        assert approval.epsilon_ceiling >= study.privacy.epsilon
        assert mode in policy.allowed_modes
        assert ("none" in policy.allowed_modes) == (mode == "none")
        assert policy.allow_internal_evaluation == (mode == "none")
    for path in (written.study, *(home / "site.yaml" for home in written.sites.values())):
        path.unlink()


def test_damage_on_purpose(tmp_path):
    spec = small_spec(damaged_files=True).model_copy(
        update={"sites": demo_spec(patients=5, seed=11).sites[:1], "missing_modality": 0.0}
    )
    made = write_consortium(tmp_path, spec, workers=1)
    rows = read_manifest(made.sites["synthetic-alder"] / "manifest.csv").rows
    with openslide.OpenSlide(rows[0].slides[0]) as slide:
        assert "openslide.mpp-x" not in slide.properties
    with openslide.OpenSlide(rows[1].slides[0]) as slide:
        assert "openslide.mpp-x" in slide.properties
    with pytest.raises(ExtractionError):
        read_volume(rows[1].volumes["t1"])
    read_volume(rows[1].volumes["t2"])
