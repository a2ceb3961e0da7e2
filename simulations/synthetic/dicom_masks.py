"""Write tumour masks as radiotherapy contours (RTSTRUCT) and as DICOM segmentations (SEG)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.optional import require
from simulations.synthetic.dicom_series import (
    DATE,
    MANUFACTURER,
    TIME,
    SeriesIdentity,
    base_dataset,
    uid,
)

TUMOUR_NAME = "GTV_Mass"

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"


def slice_contours(plane: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.float64]]:
    """Return closed outlines (P, 2) of a mask as (column, row) pixel-centre coordinates.

    Vertices lie halfway between an inner and an outer pixel centre (marching squares at level
    one half), so every inner centre is inside and every outer centre outside.
    """
    contourpy = require("contourpy", extra="radiology")
    padded = np.pad(plane.astype(np.float64), 1)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    return [np.asarray(line)[:-1] - 1 for line in lines]


def write_rtstruct(
    path: Path, mask: npt.NDArray[np.uint8], series: Sequence[Any], identity: SeriesIdentity
) -> None:
    """Write the mask as closed planar contours in mm on the slices of a series.

    Args:
        path: File to write.
        mask: (slices, rows, columns), one piece without holes in every slice.
        series: Datasets of the series, first slice first.
        identity: Whom the series belongs to.
    """
    instance = uid(identity.patient_id, identity.sequence, "rtstruct")
    dataset = base_dataset(_RTSTRUCT, instance, identity)
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = uid(identity.patient_id, identity.sequence, "rtstruct-series")
    dataset.SeriesNumber = 100 + identity.number
    dataset.OperatorsName = ""
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.StructureSetLabel = "SYNTHETIC"
    dataset.StructureSetDate, dataset.StructureSetTime = DATE, TIME
    dataset.ReferencedFrameOfReferenceSequence = [_reference(series, identity)]
    region = _item(
        ROINumber=1,
        ReferencedFrameOfReferenceUID=identity.frame_uid,
        ROIName=TUMOUR_NAME,
        ROIGenerationAlgorithm="AUTOMATIC",
    )
    dataset.StructureSetROISequence = [region]
    contours = [
        _contour(outline, image)
        for plane, image in zip(mask, series, strict=True)
        for outline in slice_contours(plane > 0)
    ]
    roi = _item(ROIDisplayColor=[255, 0, 0], ReferencedROINumber=1, ContourSequence=contours)
    dataset.ROIContourSequence = [roi]
    observation = _item(
        ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="GTV", ROIInterpreter=""
    )
    dataset.RTROIObservationsSequence = [observation]
    dataset.save_as(path, enforce_file_format=True)


def _item(**values: object) -> Any:
    """Return a DICOM dataset with these attributes, by keyword."""
    item = require("pydicom", extra="radiology").Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _reference(series: Sequence[Any], identity: SeriesIdentity) -> Any:
    """Return the chain frame of reference, study, series, images."""
    images = _item(
        SeriesInstanceUID=identity.series_uid,
        ContourImageSequence=[_image_reference(image) for image in series],
    )
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=identity.study_uid,
        RTReferencedSeriesSequence=[images],
    )
    return _item(FrameOfReferenceUID=identity.frame_uid, RTReferencedStudySequence=[study])


def _image_reference(image: Any) -> Any:
    return _item(
        ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID
    )


def _contour(outline: npt.NDArray[np.float64], image: Any) -> Any:
    x, y, z = (float(value) for value in image.ImagePositionPatient)
    row_mm, column_mm = (float(value) for value in image.PixelSpacing)
    points = np.column_stack(
        [
            x + outline[:, 0] * column_mm,
            y + outline[:, 1] * row_mm,
            np.full(len(outline), z),
        ]
    )
    return _item(
        ContourImageSequence=[_image_reference(image)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points),
        ContourData=[f"{value:.4f}" for value in points.ravel()],
    )


def write_seg(
    path: Path, mask: npt.NDArray[np.uint8], series: Sequence[Any], identity: SeriesIdentity
) -> None:
    """Write the mask as a binary DICOM segmentation of a series.

    Args:
        path: File to write.
        mask: (slices, rows, columns), 1 = tumour.
        series: Datasets of the series, first slice first.
        identity: Whom the series belongs to.
    """
    highdicom = require("highdicom", extra="simulate")
    codes = require("pydicom.sr.codedict", extra="radiology").codes
    content = highdicom.content
    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=TUMOUR_NAME,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type="AUTOMATIC",
        algorithm_identification=content.AlgorithmIdentificationSequence(
            name="synthetic phantom", version="1", family=codes.DCM.ArtificialIntelligence
        ),
    )
    dataset = highdicom.seg.Segmentation(
        source_images=list(series),
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=uid(identity.patient_id, identity.sequence, "seg-series"),
        series_number=200 + identity.number,
        sop_instance_uid=uid(identity.patient_id, identity.sequence, "seg"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name="Phantom",
        software_versions="1",
        device_serial_number="0",
        omit_empty_frames=True,
    )
    _fix_dates_and_uids(dataset, identity)
    dataset.save_as(path, enforce_file_format=True)


def _fix_dates_and_uids(dataset: Any, identity: SeriesIdentity) -> None:
    """Replace the clock readings and random identifiers the library put in."""
    uid_of: dict[str, str] = {}

    def settle(_parent: Any, element: Any) -> None:
        if element.VR == "DA" and element.value:
            element.value = DATE
        elif element.VR == "TM" and element.value:
            element.value = TIME
        elif element.VR == "DT" and element.value:
            element.value = DATE + TIME
        elif element.tag == 0x00209164:  # DimensionOrganizationUID
            name = str(len(uid_of))
            fixed = uid(identity.patient_id, identity.sequence, "dimension", name)
            element.value = uid_of.setdefault(str(element.value), fixed)

    dataset.walk(settle)
