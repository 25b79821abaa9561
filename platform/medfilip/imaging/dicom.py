"""DICOM radiographs → pixels, for files that nobody vouches for.

The order is the point: the file's size, then its header, then what the header claims, and only then a decoder. What
is accepted is one greyscale projection of a chest; everything else gets a code that says what it was instead.
"""

from __future__ import annotations

import math
import re
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.dicom_file import guarded, parse_dicom, text_of
from medfilip.imaging.dicom_pixels import PixelClaim, pixel_claim, stored_values, unsupported
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.radiograph import Radiograph, ViewPosition, pixel_hash
from medfilip.imaging.view_words import view_of, view_position_of
from medfilip.imaging.windowing import grey_values_of, to_monochrome2
from medfilip.reports.scope import names_chest, names_other_anatomy

_RADIOGRAPHIC = frozenset({"CR", "DX", "RG"})
"""Modalities of projection radiographs (PS3.3, section C.7.3.1.1.1); RG is digitised film."""
_RADIOGRAPHIC_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"})
"""SOP classes of CR and of DX for presentation (PS3.4, annex B.5)."""
_TOMOGRAPHIC = frozenset({"CT", "MR", "NM", "PT", "US", "OPT", "IVUS", "IVOCT"})
_OTHER_BODY_PART_WORDS = (
    "ABDOMEN ANKLE ARM BREAST CALCANEUS CALF CSPINE CERVICALSPINE CLAVICLE COCCYX ELBOW EXTREMITY EYE "
    "FACE FEMUR FINGER FOOT FOREARM HAND HEAD HIP HUMERUS JAW KNEE LEG LSPINE LUMBARSPINE MANDIBLE "
    "MAXILLA NECK NOSE ORBIT PATELLA PELVIS RADIUS SACRUM SCALP SHOULDER SKULL SSPINE TEETH THIGH "
    "THUMB TIBIA TOE ULNA WHOLEBODY WRIST ZYGOMA"
)
_DESCRIPTIONS = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
)
_OTHER_BODY_PARTS = frozenset(_OTHER_BODY_PART_WORDS.split())
"""Body Part Examined values (PS3.16, annex L, without spaces and underscores) that are surely not a chest."""


def read_dicom(data: bytes, limits: ImageLimits, decoder: IsolatedDecoder | None = None) -> Radiograph:
    """Read one chest radiograph from the bytes of a DICOM file.

    Grey values follow PS3.3: Modality LUT (C.11.1), VOI LUT or window (C.11.2), then MONOCHROME1 is inverted
    (C.7.6.3.1.2). Data of up to 8 bits stay ``uint8``; deeper data fill the range of ``uint16``.

    Parameters
    ----------
    data
        A DICOM Part 10 file, or a bare little-endian data set as old systems write it.
    limits
        Bounds that hold before anything is decoded.
    decoder
        Worker for compressed pixels; without it one is started and ended for this image.

    Raises
    ------
    MedfilipError
        ``IMAGE_TOO_LARGE``, ``IMAGE_NOT_DICOM``, ``IMAGE_NO_PIXELS``, ``IMAGE_UNSUPPORTED``, ``IMAGE_NOT_CHEST``,
        ``IMAGE_BURNED_IN``, ``IMAGE_UNDECODABLE``, ``IMAGE_DECODE_TIMEOUT``, or ``DEPENDENCY_MISSING`` for a transfer
        syntax that no installed library decodes.
    """
    dataset = parse_dicom(data, limits)
    claim = pixel_claim(dataset, limits)
    with guarded():
        _check_greyscale(claim)
        _check_chest(dataset)
        _check_presentation(dataset, limits)
    stored = stored_values(dataset, claim, limits, decoder)
    with guarded():
        return _radiograph(dataset, claim, to_monochrome2(stored, dataset))


def _check_greyscale(claim: PixelClaim) -> None:
    if claim.samples != 1 or claim.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise unsupported("Photometric Interpretation is not MONOCHROME1 or MONOCHROME2")
    if claim.frames > 1:
        raise unsupported(f"Number of Frames is {claim.frames}; a radiograph has one")


def _check_chest(dataset: Dataset) -> None:
    modality = (text_of(dataset, "Modality") or "").upper()
    if modality in _TOMOGRAPHIC:
        raise unsupported("Modality is a tomographic one, not CR, DX or RG")
    field = _other_body_part(dataset) if _is_radiograph(dataset, modality) else "Modality"
    if field is None:
        return
    raise MedfilipError(
        ErrorCode.IMAGE_NOT_CHEST,
        f"{field} says that the image is not a chest radiograph (CR, DX or RG).",
        fix="Send chest radiographs only, or correct the attribute.",
    )


def _is_radiograph(dataset: Dataset, modality: str) -> bool:
    """Whether Modality says so, or, where de-identification took it away, nothing says that it is something else."""
    if dataset.get("Modality"):
        return modality in _RADIOGRAPHIC
    return str(dataset.get("SOPClassUID") or "1.2.840.10008.5.1.4.1.1.1") in _RADIOGRAPHIC_CLASSES


def _other_body_part(dataset: Dataset) -> str | None:
    """Name the attribute that says that the image shows another part of the body; descriptions are asked last."""
    part = text_of(dataset, "BodyPartExamined")
    if part is not None:
        letters = re.sub(r"[^A-Z]", "", part.upper())
        return "Body Part Examined" if letters in _OTHER_BODY_PARTS or names_other_anatomy(part) else None
    if dataset.get("AnatomicRegionSequence"):
        meaning = text_of(dataset.AnatomicRegionSequence[0], "CodeMeaning") or ""
        return "Anatomic Region" if names_other_anatomy(meaning) else None
    described = {name: text_of(dataset, name) or "" for name in _DESCRIPTIONS}
    if any(names_chest(words) for words in described.values()):
        return None
    return next((name for name, words in described.items() if names_other_anatomy(words)), None)


def _check_presentation(dataset: Dataset, limits: ImageLimits) -> None:
    if text_of(dataset, "PresentationIntentType") == "FOR PROCESSING":
        raise unsupported("Presentation Intent Type is FOR PROCESSING, which is raw detector data")
    if text_of(dataset, "BurnedInAnnotation") == "YES" and not limits.accept_burned_in:
        raise MedfilipError(
            ErrorCode.IMAGE_BURNED_IN,
            "Burned In Annotation is YES: the pixels may show who the patient is.",
            fix="Export the image without annotation, or set limits.accept_burned_in=true if it was checked.",
        )


def _radiograph(dataset: Dataset, claim: PixelClaim, pixels: NDArray[Any]) -> Radiograph:
    view_position = _view_position(dataset)
    return Radiograph(
        pixels=pixels,
        view=view_of(view_position),
        view_position=view_position,
        spacing_mm=_spacing(dataset),
        photometric=claim.photometric,
        transfer_syntax=claim.transfer_syntax,
        bits_stored=claim.bits_stored,
        pixel_hash=pixel_hash(pixels),
        grey_values=grey_values_of(dataset),
        study_uid=text_of(dataset, "StudyInstanceUID"),
        sop_uid=text_of(dataset, "SOPInstanceUID"),
        patient_id=text_of(dataset, "PatientID"),
        sex=text_of(dataset, "PatientSex"),
        age=text_of(dataset, "PatientAge"),
    )


def _view_position(dataset: Dataset) -> ViewPosition | None:
    """View Position, or what the View Code means where that is empty, as in many DX files."""
    found = view_position_of(text_of(dataset, "ViewPosition"))
    if found is None and dataset.get("ViewCodeSequence"):
        found = view_position_of(text_of(dataset.ViewCodeSequence[0], "CodeMeaning"))
    return found


def _spacing(dataset: Dataset) -> float | None:
    """Row spacing in mm: at the detector if given (PS3.3, C.8.11.3), else as calibrated (10.7.1.3)."""
    for name in ("ImagerPixelSpacing", "PixelSpacing"):
        try:
            value = float(dataset.get(name)[0])
        except (TypeError, ValueError, IndexError):
            continue
        if math.isfinite(value) and value > 0:
            return value
    return None
