"""Images of phantom studies as DICOM Part 10 files, with the header a radiography unit would write."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from medfilip.phantom.draw import FIELD_MM, MAX_VALUE, PhantomImage
from medfilip.phantom.study import PhantomStudy

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_DATE, _TIME = "20200101", "120000"  # a corpus that holds the date of its making would differ from day to day
_DX, _CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1"
_IMPLEMENTATION_UID = "2.25.206213907021873440211839285029163894741"
_ORIENTATION = {"PA": ["L", "F"], "AP": ["L", "F"], "LL": ["P", "F"]}
"""PatientOrientation (PS3.3, C.7.6.1.1.1): where rows and columns lead; on a lateral image from front to back."""
_TECHNIQUE = {"PA": (125, 1800), "AP": (90, 1000), "LL": (125, 1800)}
"""Tube voltage (kV) and distance from source to detector (mm): upright at the wall stand, or at the bedside."""


def dicom_bytes(study: PhantomStudy, number: int = 0) -> bytes:
    """Encode an image of a study (0 frontal, 1 lateral) as a DICOM Part 10 file.

    Modality, photometric interpretation, compression and window vary with the number of the study, so that any few
    neighbouring studies cover all kinds.
    """
    from pydicom.uid import UID, RLELossless

    is_dx, inverted, compressed, windowed = (bool(study.index >> bit & 1) for bit in (0, 1, 2, 3))
    image = study.images[number]
    file = _header(study, number, UID(_DX if is_dx else _CR))
    file.Modality = "DX" if is_dx else "CR"
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    file.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    if windowed:
        file.WindowCenter, file.WindowWidth = (MAX_VALUE + 1) // 2, MAX_VALUE + 1
    stored = (np.uint16(MAX_VALUE) - image.pixels if inverted else image.pixels).astype("<u2")
    file.Rows, file.Columns = stored.shape
    spacing = round(FIELD_MM / stored.shape[0], 6)
    file.ImagerPixelSpacing = [spacing, spacing]
    file.PixelData = stored.tobytes()
    file["PixelData"].VR = "OW"
    if compressed:
        file.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _header(study: PhantomStudy, number: int, sop_class: str) -> FileDataset:
    """Attributes that do not depend on how the pixels are stored."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(study.sop_uids[number])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    file = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = UID(sop_class), UID(study.sop_uids[number])
    file.StudyInstanceUID, file.SeriesInstanceUID = UID(study.study_uid), UID(_series_uid(study))
    file.StudyDate = file.ContentDate = file.AcquisitionDate = _DATE
    file.StudyTime = file.ContentTime = file.AcquisitionTime = _TIME
    file.AccessionNumber, file.StudyID = study.report_id, str(study.index)
    file.SeriesNumber, file.InstanceNumber = 1, number + 1
    file.PatientName, file.PatientID = study.patient_name, study.patient_id
    file.PatientBirthDate, file.PatientSex, file.PatientAge = "", study.sex, f"{study.age:03d}Y"
    file.ReferringPhysicianName, file.Manufacturer = "", "MedFILIP phantom"
    _describe(file, study.images[number])
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    return file


def _describe(file: FileDataset, image: PhantomImage) -> None:
    """Say how the image was taken."""
    file.ManufacturerModelName = image.style
    file.SeriesDescription = {"PA": "Chest PA", "AP": "Chest AP portable", "LL": "Chest lateral"}[image.view]
    file.ImageType = ["ORIGINAL", "PRIMARY", ""]
    file.BodyPartExamined, file.ViewPosition = "CHEST", image.view
    file.PatientOrientation = _ORIENTATION[image.view]
    file.KVP, file.DistanceSourceToDetector = _TECHNIQUE[image.view]
    file.PixelIntensityRelationship, file.PixelIntensityRelationshipSign = "LOG", 1
    file.PresentationIntentType = "FOR PRESENTATION"
    file.BurnedInAnnotation = "NO"


def _series_uid(study: PhantomStudy) -> str:
    return f"2.25.{int(study.study_uid.removeprefix('2.25.')) ^ 1}"
