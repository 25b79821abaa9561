"""De-identification of DICOM files after the Basic Application Level Confidentiality Profile (PS3.15, annex E).

The profile lists some 600 attributes that must go. Here the list is the other way round: what an image needs to be
read and what says how it was made stays (none of it is in Table E.1-1, or the profile's action for it is carried
out), and everything else goes, private attributes, overlays, comments and what the standard will add later included.
Identifiers that must keep meaning the same across files are replaced: UIDs by dicognito's keyed hashes, the patient
by the pseudonym that ingestion gives too, with a seal. The same key gives the same result on every machine, and a
file that was de-identified stays as it is, unless something was written into it afterwards: that goes again.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import pseudonym
from medfilip.imaging.dicom_file import guarded, parse_dicom
from medfilip.imaging.dicom_pixels import PixelClaim, pixel_claim
from medfilip.imaging.hidden_bytes import without_hidden_bytes
from medfilip.imaging.limits import ImageLimits

METHOD = "medfilip basic profile 3"
"""Value of De-identification Method (0012,0063); its number is raised whenever the result changes."""
_PROFILE = ("113100", "DCM", "Basic Application Confidentiality Profile")
_CHARACTERISTICS = ("113108", "DCM", "Retain Patient Characteristics Option")

_IMAGE = (
    "SpecificCharacterSet ImageType SOPClassUID Modality PresentationIntentType PresentationLUTShape ConversionType "
    "Manufacturer ManufacturerModelName SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames "
    "Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SmallestImagePixelValue LargestImagePixelValue "
    "PixelPaddingValue PixelPaddingRangeLimit PixelData PixelAspectRatio PixelSpacing ImagerPixelSpacing "
    "PixelSpacingCalibrationType RescaleSlope RescaleIntercept RescaleType ModalityLUTSequence VOILUTSequence "
    "WindowCenter WindowWidth VOILUTFunction LossyImageCompression LossyImageCompressionRatio "
    "LossyImageCompressionMethod PixelIntensityRelationship PixelIntensityRelationshipSign BurnedInAnnotation"
)
"""General and DX image, pixels, presentation (PS3.3, C.7.6.1, C.7.6.3, C.8.11, C.11)."""
_TECHNIQUE = (
    "BodyPartExamined ViewPosition ViewCodeSequence ViewModifierCodeSequence PatientOrientation Laterality "
    "ImageLaterality AnatomicRegionSequence PatientPosition KVP ExposureTime XRayTubeCurrent Exposure ExposureInuAs "
    "ExposureTimeInuS DistanceSourceToDetector DistanceSourceToPatient Grid FilterType FocalSpots Sensitivity "
    "RelativeXRayExposure ExposureIndex TargetExposureIndex DeviationIndex DetectorType SeriesNumber InstanceNumber"
)
"""Position and technique (C.8.7, C.8.11.5 to C.8.11.9)."""
_ITEMS = "CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning LUTDescriptor LUTData ModalityLUTType"
"""What items of code sequences and look-up tables hold."""
_KEPT = frozenset(f"{_IMAGE} {_TECHNIQUE} {_ITEMS}".split())
_KEPT_TAGS = frozenset(tag for tag in map(tag_for_keyword, _KEPT) if tag is not None)
_ITEM_TAGS = frozenset(
    tag for tag in map(tag_for_keyword, f"{_ITEMS} ViewModifierCodeSequence".split()) if tag is not None
)
_UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_EMPTY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "PatientBirthDate", "PatientSex",
)  # fmt: skip
"""Attributes that must be there, and are left empty (type 2, action Z)."""
_SEAL = 8
"""Characters of a patient's new id that only this key makes: by them a file is known again."""
_CHARACTERISTIC = ("PatientSex", "PatientAge", "PatientSize", "PatientWeight")
_OTHERS = ("PatientID", "BurnedInAnnotation", "DeidentificationMethod", *_UIDS, *_CHARACTERISTIC)
_READ: list[int] = sorted({*_KEPT_TAGS, *(tag for tag in map(tag_for_keyword, _OTHERS) if tag is not None)})


@dataclass(frozen=True)
class Deidentified:
    """A de-identified file.

    Attributes
    ----------
    data
        The file.
    patient_id, study_uid, sop_uid
        Its new identifiers.
    already
        Whether it was de-identified before by this key, and holds nothing else: then it is unchanged.
    """

    data: bytes
    patient_id: str
    study_uid: str
    sop_uid: str
    already: bool


class Deidentifier:
    """De-identifies files one after the other, always the same way for one key.

    Parameters
    ----------
    key
        The project's key.
    limits
        Bounds on a file; pixels are not decoded.
    keep_characteristics
        Keep sex, age, size and weight (Retain Patient Characteristics Option).
    """

    def __init__(self, key: bytes, limits: ImageLimits, *, keep_characteristics: bool = False) -> None:
        from dicognito.anonymizer import Anonymizer

        self._key, self._limits, self._keep = key, limits, keep_characteristics
        self._anonymizer = Anonymizer(seed=pseudonym(key, "seed", "dicognito"))

    def __call__(self, data: bytes) -> Deidentified:
        """De-identify a file.

        Raises
        ------
        MedfilipError
            As `medfilip.imaging.dicom_pixels.pixel_claim`; ``IMAGE_BURNED_IN`` if the header says that the pixels hold
            annotation, which no change of the header can take away.
        """
        parsed = parse_dicom(data, self._limits)
        claim = pixel_claim(parsed, self._limits)
        with guarded():
            source = dcmread(io.BytesIO(data), force=True, specific_tags=_READ)
            if source.get("BurnedInAnnotation") == "YES" and not self._limits.accept_burned_in:
                raise MedfilipError(
                    ErrorCode.IMAGE_BURNED_IN,
                    "Burned In Annotation is YES: the pixels may show who the patient is.",
                    fix="Export the image without annotation, or set limits.accept_burned_in=true if it was checked.",
                )
            ours = self._is_ours(source)
            target = self._made_of(source, claim, ours=ours)
            buffer = io.BytesIO()
            target.save_as(buffer, enforce_file_format=True)
            return _result(target, buffer.getvalue(), already=ours and buffer.getvalue() == data)

    def _is_ours(self, source: Dataset) -> bool:
        """Whether this key de-identified the file: another's mark alone proves nothing."""
        patient = str(source.get("PatientID") or "")
        return str(source.get("DeidentificationMethod") or "") == METHOD and self._sealed(patient[:-_SEAL]) == patient

    def _sealed(self, name: str) -> str:
        return name + pseudonym(self._key, "seal", name)[:_SEAL]

    def _made_of(self, source: Dataset, claim: PixelClaim, *, ours: bool) -> FileDataset:
        """Make a file of what may stay; one that is ``ours`` has its new identifiers already, and keeps them."""
        syntax = UID(claim.transfer_syntax)
        target = FileDataset(io.BytesIO(), _kept(source), file_meta=_file_meta(syntax), preamble=b"\0" * 128)
        target.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian)
        for name in _UIDS:
            if source.get(name):
                setattr(target, name, source.get(name))
        if not ours:
            self._anonymizer.anonymize(target)
        target["PixelData"].value = without_hidden_bytes(target["PixelData"].value, claim)
        for name in _EMPTY:
            setattr(target, name, "")
        for name in _CHARACTERISTIC if self._keep else ():
            if source.get(name):
                setattr(target, name, _at_most_90(name, source.get(name)))
        patient = str(source.get("PatientID") or source.get("StudyInstanceUID") or "")
        target.PatientID = patient if ours else self._sealed(pseudonym(self._key, "patient", patient))
        target.PatientName = target.PatientID
        target.PatientIdentityRemoved, target.DeidentificationMethod = "YES", METHOD
        options = [_PROFILE, *([_CHARACTERISTICS] if self._keep else [])]
        target.DeidentificationMethodCodeSequence = Sequence(map(_code, options))
        target.LongitudinalTemporalInformationModified = "REMOVED"
        target.file_meta.MediaStorageSOPClassUID = target.get("SOPClassUID", UID("1.2.840.10008.5.1.4.1.1.7"))
        target.file_meta.MediaStorageSOPInstanceUID = target.get("SOPInstanceUID", UID("2.25.0"))
        return target


def _kept(source: Dataset, tags: frozenset[int] = _KEPT_TAGS) -> Dataset:
    """Copy the attributes that stay; of items, what codes and look-up tables hold."""
    kept = Dataset()
    for tag in source.keys() & tags:
        element = source[tag]
        if element.VR == "SQ":
            items = [_kept(item, _ITEM_TAGS) for item in element.value or []]
            setattr(kept, element.keyword, Sequence(items))
        else:
            kept.add(element)
    return kept


def _at_most_90(name: str, value: Any) -> Any:
    """Tell ages above 90 as 90: there are few such people."""
    match = re.fullmatch(r"0*(\d+)Y", str(value)) if name == "PatientAge" else None
    return "090Y" if match and int(match[1]) > 90 else value


def _file_meta(syntax: UID) -> Any:
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    return meta


def _code(code: tuple[str, str, str]) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _result(dataset: Dataset, data: bytes, *, already: bool) -> Deidentified:
    return Deidentified(
        data,
        str(dataset.get("PatientID", "")),
        str(dataset.get("StudyInstanceUID", "")),
        str(dataset.get("SOPInstanceUID", "")),
        already,
    )
