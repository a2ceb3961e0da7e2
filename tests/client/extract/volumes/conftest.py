"""A small ellipsoid phantom, written as DICOM series, RTSTRUCT, SEG and NIfTI by outside tools."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contourpy
import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

sitk = pytest.importorskip("SimpleITK")

MR = "1.2.840.10008.5.1.4.1.1.4"


@dataclass
class Phantom:
    """An ellipsoid tumour with a cavity in a box of noise, oblique in space."""

    image: sitk.Image
    mask: sitk.Image

    @property
    def array(self) -> np.ndarray:
        return sitk.GetArrayFromImage(self.image)

    @property
    def region(self) -> np.ndarray:
        return sitk.GetArrayFromImage(self.mask) > 0

    @property
    def volume_ml(self) -> float:
        return float(self.region.sum() * np.prod(self.mask.GetSpacing()) / 1000)


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    a, b, c = np.radians(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def make_phantom(
    shape: tuple[int, int, int] = (16, 40, 48),
    spacing: tuple[float, float, float] = (1.1, 1.3, 3.0),
    angles: tuple[float, float, float] = (11.0, -17.0, 23.0),
    cavity: bool = True,
) -> Phantom:
    k, j, i = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    x, y, z = i * spacing[0] - 4.0, j * spacing[1] + 2.0, k * spacing[2]
    region = (x / 14) ** 2 + (y / 11) ** 2 + (z / 13) ** 2 < 1
    if cavity:
        region &= ((x + 3) / 5) ** 2 + (y / 4) ** 2 + (z / 6) ** 2 >= 1
    noise = np.random.default_rng(5).normal(0, 20, shape)
    body = (x / 24) ** 2 + (y / 24) ** 2 < 1
    values = np.where(region, 700, np.where(body, 400, 20)) + noise
    image = sitk.GetImageFromArray(np.clip(values, 0, None).astype(np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin((-31.5, 17.25, 120.75))
    image.SetDirection(rotation(angles).ravel().tolist())
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    mask.CopyInformation(image)
    return Phantom(image, mask)


def write_series(
    folder: Path, image: sitk.Image, *, series_uid: str | None = None, frame_uid: str | None = None
) -> list[Any]:
    """Write one file a slice, names in no order; return datasets in slice order."""
    folder.mkdir(parents=True, exist_ok=True)
    series_uid, frame_uid = series_uid or generate_uid(), frame_uid or generate_uid()
    study_uid = generate_uid()
    direction = np.array(image.GetDirection()).reshape(3, 3)
    array = sitk.GetArrayFromImage(image)
    datasets = []
    for k, plane in enumerate(array):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MR
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
        dataset.FrameOfReferenceUID = frame_uid
        dataset.PositionReferenceIndicator = ""
        dataset.Modality = "MR"
        dataset.PatientID, dataset.PatientName = "phantom", "phantom^"
        dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "120000", "1"
        dataset.ReferringPhysicianName = dataset.Manufacturer = ""
        dataset.SeriesNumber, dataset.InstanceNumber = 1, k + 1
        position = image.TransformIndexToPhysicalPoint((0, 0, k))
        dataset.ImagePositionPatient = [f"{v:.10g}" for v in position]
        orientation = [*direction[:, 0], *direction[:, 1]]
        dataset.ImageOrientationPatient = [f"{v:.12f}" for v in orientation]
        dataset.PixelSpacing = [image.GetSpacing()[1], image.GetSpacing()[0]]
        dataset.SliceThickness = 0.7 * image.GetSpacing()[2]
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 1
        dataset.PixelData = plane.astype("<i2").tobytes()
        dataset.save_as(folder / f"{(k * 7) % 97:03d}_{k}.dcm", enforce_file_format=True)
        datasets.append(dataset)
    return datasets


def write_rtstruct(
    path: Path,
    mask: sitk.Image,
    *,
    name: str = "GTV-1",
    series_uid: str = "",
    frame_uid: str = "",
    more: dict[str, sitk.Image] | None = None,
) -> None:
    """Write outlines halfway between inside and outside voxel centres."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    series, study, frame = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = series_uid
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = frame_uid
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    for number, (label, region) in enumerate({name: mask, **(more or {})}.items(), start=1):
        roi, drawn = pydicom.Dataset(), pydicom.Dataset()
        roi.ROINumber = drawn.ReferencedROINumber = number
        roi.ROIName, roi.ReferencedFrameOfReferenceUID = label, frame_uid
        drawn.ContourSequence = []
        for k, plane in enumerate(sitk.GetArrayFromImage(region)):
            padded = np.pad(plane.astype(float), 1)
            for line in contourpy.contour_generator(z=padded).lines(0.5):
                contour = pydicom.Dataset()
                contour.ContourGeometricType = "CLOSED_PLANAR"
                points = [
                    region.TransformContinuousIndexToPhysicalPoint((x - 1, y - 1, float(k)))
                    for x, y in line[:-1]
                ]
                contour.NumberOfContourPoints = len(points)
                contour.ContourData = [f"{v:.4f}" for point in points for v in point]
                drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    dataset.save_as(path, enforce_file_format=True)


def write_seg(
    path: Path, regions: dict[str, np.ndarray], series: list[Any], kind: str = "BINARY"
) -> None:
    """Write segments with highdicom; `regions` hold (K, J, I) masks in slice order."""
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(regions, start=1)
    ]
    stacked = np.stack([region.astype(np.uint8) for region in regions.values()], axis=-1)
    if kind == "LABELMAP":
        stacked = (stacked * np.arange(1, len(regions) + 1)).max(axis=-1).astype(np.uint8)
    dataset = highdicom.seg.Segmentation(
        source_images=series,
        pixel_array=stacked.astype(np.float32) if kind == "FRACTIONAL" else stacked,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="phantom",
        manufacturer_model_name="phantom",
        software_versions="1",
        device_serial_number="0",
    )
    dataset.save_as(path, enforce_file_format=True)


@dataclass
class Writers:
    """The functions of this file, for tests."""

    make_phantom = staticmethod(make_phantom)
    write_series = staticmethod(write_series)
    write_rtstruct = staticmethod(write_rtstruct)
    write_seg = staticmethod(write_seg)


@pytest.fixture(scope="session")
def radiology() -> Writers:
    return Writers()


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom()
