"""DICOM files made in memory, so that every test says what its file holds."""

import io

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID

from medfilip.imaging.limits import EXPLICIT_LITTLE


def make_dicom(pixels: np.ndarray, *, syntax: str = EXPLICIT_LITTLE, bits: int = 12, **attributes: object) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
    meta.MediaStorageSOPInstanceUID = UID("2.25.7")
    meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE)
    file = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID, file.StudyInstanceUID = meta.MediaStorageSOPClassUID, "2.25.7", "2.25.8"
    file.Modality, file.BodyPartExamined, file.ViewPosition = "CR", "CHEST", "PA"
    file.PatientID, file.PatientName, file.PatientSex, file.PatientAge = "CANARY-ID", "CANARY^NAME", "F", "054Y"
    file.PhotometricInterpretation, file.SamplesPerPixel = "MONOCHROME2", 1
    file.Rows, file.Columns = pixels.shape[:2]
    file.BitsAllocated = 8 * pixels.dtype.itemsize
    file.BitsStored, file.HighBit, file.PixelRepresentation = bits, bits - 1, int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    file["PixelData"].VR = "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    if UID(syntax).is_compressed and not UID(syntax).is_deflated:
        file.compress(UID(syntax), generate_instance_uid=False)
    elif syntax != EXPLICIT_LITTLE:
        file.file_meta.TransferSyntaxUID = UID(syntax)
        if syntax == "1.2.840.10008.1.2.2":
            file.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    buffer = io.BytesIO()
    little, implicit = syntax != "1.2.840.10008.1.2.2", syntax == "1.2.840.10008.1.2"
    if not little:
        file = _as_encoded(file, implicit=implicit, little=little)
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _as_encoded(file: FileDataset, *, implicit: bool, little: bool) -> FileDataset:
    copy = FileDataset(io.BytesIO(), file, preamble=b"\0" * 128, file_meta=file.file_meta, is_little_endian=little)
    copy._is_implicit_VR = implicit
    return copy
