"""Write the raw image files of one synthetic patient, in the formats of the hospital."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.optional import require
from simulations.synthetic.cohort import SiteCohort
from simulations.synthetic.dicom_masks import write_rtstruct, write_seg
from simulations.synthetic.dicom_series import SeriesIdentity, write_series
from simulations.synthetic.nifti_volume import write_nifti
from simulations.synthetic.phantom import SEQUENCES, SPACING_MM, HeadScan, draw_lesion, render_head
from simulations.synthetic.pyramid_tiff import TILE, write_pyramid
from simulations.synthetic.site_shift import draw_shift
from simulations.synthetic.spec import ConsortiumSpec, SiteSpec
from simulations.synthetic.streams import stream
from simulations.synthetic.tissue_image import draw_histology, render_slide


@dataclass(frozen=True)
class PatientJob:
    """One patient to write.

    Attributes:
        folder: Folder of the consortium.
        spec: The consortium.
        cohort: Patients of the hospital.
        index: Position of the patient among them.
    """

    folder: Path
    spec: ConsortiumSpec
    cohort: SiteCohort
    index: int


@dataclass(frozen=True)
class PatientPaths:
    """Image files of one patient, relative to the hospital's folder."""

    slides: list[str]
    volumes: dict[str, str]
    masks: dict[str, str]


def image_paths(cohort: SiteCohort, index: int) -> PatientPaths:
    """Return where the images of one patient lie; empty where the modality is absent."""
    site, patient = cohort.site, cohort.patient_ids[index]
    slides: list[str] = []
    volumes: dict[str, str] = {}
    masks: dict[str, str] = {}
    if cohort.has("pathology")[index]:
        suffix = ".svs" if site.slide_format == "svs" else ".tif"
        count = 2 if cohort.two_slides[index] else 1
        slides = [f"slides/{patient}_{number + 1}{suffix}" for number in range(count)]
    if cohort.has("radiology")[index] and site.volume_format == "nifti":
        volumes = {name: f"volumes/{patient}_{name}.nii.gz" for name in SEQUENCES}
        masks = dict.fromkeys(SEQUENCES, f"volumes/{patient}_tumour.nii.gz")
    elif cohort.has("radiology")[index]:
        kind = mask_kind(index)
        volumes = {name: f"volumes/{patient}/{name}" for name in SEQUENCES}
        masks = {name: f"volumes/{patient}/{name}_{kind}.dcm" for name in SEQUENCES}
    return PatientPaths(slides=slides, volumes=volumes, masks=masks)


def mask_kind(index: int) -> str:
    """Return how a DICOM site stores this patient's mask; both kinds occur."""
    return "rtstruct" if index % 2 == 0 else "seg"


def write_patient_images(job: PatientJob) -> str:
    """Write slides and volumes of one patient; return the patient id."""
    _limit_threads()
    paths = image_paths(job.cohort, job.index)
    if paths.slides:
        _write_slides(job, paths)
    if paths.volumes:
        _write_volumes(job, paths)
    return job.cohort.patient_ids[job.index]


def _write_slides(job: PatientJob, paths: PatientPaths) -> None:
    spec, cohort, site = job.spec, job.cohort, job.cohort.site
    patient = cohort.patient_ids[job.index]
    latent = float(cohort.factor("pathology")[job.index])
    histology = draw_histology(latent, stream(spec.seed, patient, "histology"))
    shift = draw_shift(spec.seed, site.site_id, spec.site_shift)
    for name in paths.slides:
        pixels = render_slide(
            histology,
            side_px=spec.slide_side_px,
            um_per_px=site.um_per_px,
            shift=shift,
            generator=stream(spec.seed, patient, "slide", name),
        )
        broken = spec.damaged_files and _damaged(spec, site, cohort, job.index) == "slide"
        write_pyramid(
            job.folder / "sites" / site.site_id / name,
            pixels,
            um_per_px=None if broken else site.um_per_px,
            description=_slide_description(site, spec.slide_side_px),
        )


def _slide_description(site: SiteSpec, side_px: int) -> str:
    if site.slide_format == "tiff":
        return "Synthetic slide, no patient exists"
    return (
        f"Aperio Image Library v0 synthetic, no patient exists\r\n{side_px}x{side_px} "
        f"({TILE}x{TILE}) JPEG/RGB Q=88|AppMag = 20|MPP = {site.um_per_px}"
    )


def _write_volumes(job: PatientJob, paths: PatientPaths) -> None:
    spec, cohort, site = job.spec, job.cohort, job.cohort.site
    patient = cohort.patient_ids[job.index]
    latent = float(cohort.factor("radiology")[job.index])
    scan = render_head(
        draw_lesion(latent, stream(spec.seed, patient, "lesion")),
        shape=spec.volume_shape,
        shift=draw_shift(spec.seed, site.site_id, spec.site_shift),
        generator=stream(spec.seed, patient, "scan"),
    )
    home = job.folder / "sites" / site.site_id
    if site.volume_format == "dicom":
        _write_dicom(job, paths, scan)
        return
    for name, voxels in scan.volumes.items():
        write_nifti(home / paths.volumes[name], voxels, SPACING_MM)
    write_nifti(home / paths.masks[SEQUENCES[0]], scan.mask, SPACING_MM)
    if spec.damaged_files and _damaged(spec, site, cohort, job.index) == "volume":
        broken = home / paths.volumes["t1"]
        broken.write_bytes(broken.read_bytes()[:200])


def _write_dicom(job: PatientJob, paths: PatientPaths, scan: HeadScan) -> None:
    site, patient = job.cohort.site, job.cohort.patient_ids[job.index]
    home = job.folder / "sites" / site.site_id
    write_mask = write_rtstruct if mask_kind(job.index) == "rtstruct" else write_seg
    for number, name in enumerate(SEQUENCES):
        identity = SeriesIdentity(site.site_id, patient, name, number + 1)
        voxels = np.ascontiguousarray(scan.volumes[name])
        series = write_series(home / paths.volumes[name], voxels, SPACING_MM, identity)
        write_mask(home / paths.masks[name], scan.mask, series, identity)
    truth = job.folder / "truth" / site.site_id
    truth.mkdir(parents=True, exist_ok=True)
    write_nifti(truth / f"{patient}_tumour.nii.gz", scan.mask, SPACING_MM)


def _damaged(spec: ConsortiumSpec, site: SiteSpec, cohort: SiteCohort, index: int) -> str:
    """Return which file of this patient is spoiled on purpose: "slide", "volume" or ""."""
    if site.site_id != spec.sites[0].site_id:
        return ""
    slides = np.flatnonzero(cohort.has("pathology"))
    scans = np.flatnonzero(cohort.has("radiology"))
    if len(slides) and index == slides[0]:
        return "slide"
    return "volume" if len(scans) > 1 and index == scans[1] else ""


def _limit_threads() -> None:
    """One thread per worker: workers are the parallelism."""
    require("cv2", extra="pathology").setNumThreads(1)
    threads = require("SimpleITK", extra="radiology").ProcessObject
    threads.SetGlobalDefaultNumberOfThreads(1)
