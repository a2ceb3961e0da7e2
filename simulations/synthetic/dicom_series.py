"""Write the DICOM MR series of a synthetic scan: one file per slice.

Identifiers are derived from names under the UUID root 2.25 (DICOM PS3.5 B.2), dates are fixed,
and every header says that the patient is synthetic, so files are the same bytes in every run.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.optional import require
from simulations.synthetic.nifti_volume import origin_mm

DATE, TIME = "20200101", "120000"
MANUFACTURER = "Tumorboard synthetic scanner"

_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@dataclass(frozen=True)
class SeriesIdentity:
    """Who and what a DICOM object belongs to.

    Attributes:
        site_id: Hospital.
        patient_id: Patient.
        sequence: MR sequence, e.g. "t1".
        number: Series number.
    """

    site_id: str
    patient_id: str
    sequence: str
    number: int

    @property
    def study_uid(self) -> str:
        """Study instance UID, shared by the patient's sequences."""
        return uid(self.patient_id, "study")

    @property
    def frame_uid(self) -> str:
        """Frame of reference UID, shared by the patient's sequences."""
        return uid(self.patient_id, "frame")

    @property
    def series_uid(self) -> str:
        """Series instance UID."""
        return uid(self.patient_id, self.sequence)

    def instance_uid(self, index: int) -> str:
        """Return the SOP instance UID of one slice."""
        return uid(self.patient_id, self.sequence, str(index))


def uid(*names: str) -> str:
    """Return the DICOM UID that belongs to these names."""
    digest = hashlib.sha256("\x1f".join(("tumorboard-synthetic", *names)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def write_series(
    folder: Path,
    voxels: npt.NDArray[np.int16],
    spacing_mm: tuple[float, float, float],
    identity: SeriesIdentity,
) -> list[Any]:
    """Write the slices of one sequence and return their datasets, first slice first.

    Args:
        folder: Folder of the series; created.
        voxels: (slices, rows, columns), not negative.
        spacing_mm: Slice, row and column spacing.
        identity: Whom the series belongs to.
    """
    pydicom = require("pydicom", extra="radiology")
    folder.mkdir(parents=True, exist_ok=True)
    origin = origin_mm(voxels.shape, spacing_mm)
    common = base_dataset(_MR_IMAGE, identity.instance_uid(0), identity)
    _describe_series(common, identity)
    _describe_pixels(common, voxels.shape[1:], spacing_mm)
    datasets = []
    for index, plane in enumerate(voxels):
        z = origin[2] + index * spacing_mm[0]
        # Elements are shared with `common`: they are replaced below, never assigned to.
        dataset = pydicom.Dataset({element.tag: element for element in common})
        instance = identity.instance_uid(index)
        meta = pydicom.dataset.FileMetaDataset({e.tag: e for e in common.file_meta})
        meta.add_new("MediaStorageSOPInstanceUID", "UI", instance)
        dataset.file_meta = meta
        dataset.add_new("SOPInstanceUID", "UI", instance)
        dataset.add_new("InstanceNumber", "IS", index + 1)
        position = [f"{value:.6g}" for value in (origin[0], origin[1], z)]
        dataset.add_new("ImagePositionPatient", "DS", position)
        dataset.add_new("SliceLocation", "DS", position[2])
        dataset.add_new("PixelData", "OW", plane.astype("<u2").tobytes())
        dataset.save_as(folder / f"IM{index + 1:04d}.dcm", enforce_file_format=True)
        datasets.append(dataset)
    return datasets


def base_dataset(sop_class: str, instance_uid: str, identity: SeriesIdentity) -> Any:
    """Return a dataset with file header and the patient and study modules."""
    pydicom = require("pydicom", extra="radiology")
    dataset = pydicom.Dataset()
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance_uid
    meta.TransferSyntaxUID = _EXPLICIT_LITTLE_ENDIAN
    meta.ImplementationClassUID = uid("implementation")
    dataset.file_meta = meta
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = instance_uid
    dataset.StudyInstanceUID = identity.study_uid
    dataset.FrameOfReferenceUID = identity.frame_uid
    dataset.PositionReferenceIndicator = ""
    dataset.PatientName = "SYNTHETIC^NOT A PERSON"
    dataset.PatientID = identity.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Synthetic data, no patient exists"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = TIME
    dataset.StudyID = "1"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.InstitutionName = identity.site_id
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "Phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    return dataset


def _describe_series(dataset: Any, identity: SeriesIdentity) -> None:
    dataset.Modality = "MR"
    dataset.SeriesInstanceUID = identity.series_uid
    dataset.SeriesNumber = identity.number
    dataset.SeriesDescription = f"Synthetic {identity.sequence.upper()}"
    dataset.ImageType = ["DERIVED", "PRIMARY", "OTHER"]
    dataset.ScanningSequence = "SE"
    dataset.SequenceVariant = "NONE"
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "2D"
    dataset.MagneticFieldStrength = 1.5
    dataset.BodyPartExamined = "HEAD"
    dataset.PatientPosition = "HFS"
    if identity.sequence == "t1c":
        dataset.ContrastBolusAgent = "synthetic contrast"


def _describe_pixels(
    dataset: Any, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
    dataset.SliceThickness = spacing_mm[0]
    dataset.SpacingBetweenSlices = spacing_mm[0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
