"""The image an answer is about → who and what it belongs to, and nothing else.

A DICOM answer goes into the patient's study, so it must carry the identity of its source. Only the attributes named
here are read and copied, one by one and checked: a header may hold anything, and highdicom copies whole modules, with
comments, addresses and history, if it is given the source itself.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import PersonName

from medfilip.answers import Diagnosis
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.dicom_file import parse_attributes, quiet
from medfilip.imaging.limits import ImageLimits

MANUFACTURER = "MedFILIP"
CHARACTER_SET = "ISO_IR 192"  # UTF-8, whatever the source was written in

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
_OPTIONAL = frozenset({"IssuerOfPatientID"})
"""Left out when empty; the others are attributes of type 2 (PS3.3, C.7.1.1 and C.7.2.1), there even when empty."""
_DECIDES_IDENTITY = frozenset({"PatientID", "IssuerOfPatientID"})
_IMAGE = ("Modality", "PatientOrientation", "ImagerPixelSpacing", "BurnedInAnnotation", "LossyImageCompression")
_SIZE = ("Rows", "Columns")
_READ = (*_UIDS, *_PATIENT, *_STUDY, *_IMAGE, *_SIZE)

_LONGEST = {"LO": 64, "SH": 16}
_PATTERNS = {
    "DA": re.compile(r"[0-9]{8}"),
    "TM": re.compile(r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d(?:\.\d{1,6})?)?)?"),
    "CS": re.compile(r"[MFO]"),
}
_ORIENTATION = re.compile(r"[LRAPHF]{1,3}")
_RADIOGRAPHIC = ("CR", "DX", "RG")
_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1",  # CR
        "1.2.840.10008.5.1.4.1.1.1.1",  # DX for presentation
        "1.2.840.10008.5.1.4.1.1.1.1.1",  # DX for processing
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture: digitised film, and what old gateways make of CR
        "1.2.840.10008.5.1.4.1.1.7.2",  # the same as a multi-frame image of one frame, of 8 …
        "1.2.840.10008.5.1.4.1.1.7.3",  # … and of 16 bits
    }
)
"""SOP classes in which a radiograph is stored (PS3.4, annex B.5)."""
_MAX_SIDE = 65_535
_UNREADABLE = object()


@dataclass(frozen=True, eq=False)
class Source:
    """What is taken over from an image.

    Attributes
    ----------
    dataset
        Patient and study attributes, the UIDs of the image and its number of rows and columns; identifies a patient.
    modality
        ``CR``, ``DX`` or ``RG``; empty where the file says something else or nothing.
    orientation
        Patient Orientation of rows and columns, or ``None``.
    spacing_mm
        Imager Pixel Spacing, between rows and between columns, or ``None``.
    burned_in
        Whether the file says that the image shows who the patient is.
    lossy
        Whether the file says that the image was compressed with loss.
    """

    dataset: Dataset = field(repr=False)
    modality: str
    orientation: tuple[str, str] | None
    spacing_mm: tuple[float, float] | None
    burned_in: bool
    lossy: bool


def read_source(source: bytes | Dataset, limits: ImageLimits | None = None) -> Source:
    """Take identity and references from an image.

    A value of type 2 that breaks its rules (over-long, control characters, several values, no date) is left empty, as
    it would be if the file lacked it; one that decides whose image it is, is never changed or dropped.

    Parameters
    ----------
    source
        A DICOM file, or its attributes.
    limits
        Bounds on a file; the defaults if not given.

    Raises
    ------
    MedfilipError
        ``SOURCE_UNIDENTIFIED`` for one without valid UIDs of study, series, image and an image class, or with a
        Patient ID that cannot be copied; ``IMAGE_NOT_DICOM``, ``IMAGE_TOO_LARGE``, ``IMAGE_UNSUPPORTED`` as
        `medfilip.imaging.dicom_file.parse_dicom`.
    """
    given = parse_attributes(source, limits or ImageLimits(), _READ) if isinstance(source, bytes) else source
    with quiet():
        values = {name: _value(given, name) for name in _READ}
    identity = Dataset()
    for name in _UIDS:
        setattr(identity, name, _uid(values, name))
    if identity.SOPClassUID not in _CLASSES:
        raise _unidentified("SOP Class UID is not one of a radiograph")
    for name in (*_PATIENT, *_STUDY):
        text = _text(values, name)
        if text or name not in _OPTIONAL:
            setattr(identity, name, text)
    identity.SpecificCharacterSet = CHARACTER_SET
    identity.Rows, identity.Columns = _side(values["Rows"]), _side(values["Columns"])
    modality = values["Modality"]
    return Source(
        identity,
        modality if isinstance(modality, str) and modality in _RADIOGRAPHIC else "",
        _orientation(values["PatientOrientation"]),
        _spacing(values["ImagerPixelSpacing"]),
        burned_in=values["BurnedInAnnotation"] == "YES",
        lossy=values["LossyImageCompression"] == "01",
    )


def read_sources(
    diagnosis: Diagnosis, sources: Sequence[bytes | Dataset], limits: ImageLimits | None = None
) -> tuple[Source, ...]:
    """Take identity and references from the images of one answer, which must be of one study of one patient.

    Raises
    ------
    MedfilipError
        As `read_source`; ``SOURCES_DIFFER`` for images of several studies or patients, for one image given twice, or
        for another number of images than the answer is about.
    """
    if len(sources) != len(diagnosis.images):
        raise _differ(f"The answer is about {len(diagnosis.images)} images; {len(sources)} are given")
    read = tuple(read_source(source, limits) for source in sources)
    for name, words in (("StudyInstanceUID", "studies"), ("PatientID", "patients")):
        if len({str(item.dataset[name].value) for item in read}) > 1:
            raise _differ(f"The images are of several {words}")
    if len({str(item.dataset.SOPInstanceUID) for item in read}) < len(read):
        raise _differ("An image is given twice")
    return read


def fresh_uid() -> UID:
    """Return a new UID below 2.25, from 122 random bits (PS3.5, B.2)."""
    return generate_uid(prefix=None)


@contextmanager
def silent() -> Iterator[None]:
    """Keep pydicom and highdicom quiet: their warnings quote names of patients, their log lines UIDs."""
    logging.getLogger("highdicom").setLevel(logging.ERROR)
    with quiet():
        yield


def stamp(dataset: Dataset, created: datetime | None) -> None:
    """Set every date and time of when an object was made: in local time, like those of the study; now for ``None``."""
    created = (created or datetime.now(UTC)).astimezone()
    for name in ("InstanceCreation", "Content"):
        if f"{name}Date" in dataset:
            setattr(dataset, f"{name}Date", created.strftime("%Y%m%d"))
            setattr(dataset, f"{name}Time", created.strftime("%H%M%S"))


def part10(dataset: Dataset) -> bytes:
    """Encode an object of this package as a DICOM file (PS3.10)."""
    buffer = io.BytesIO()
    with silent():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def is_uid(text: str) -> bool:
    """Whether a text is a valid UID (PS3.5, section 9.1): at most 64 characters, no part with a leading zero."""
    return len(text) <= 64 and UID(text, validation_mode=0).is_valid


def _value(dataset: Dataset, name: str) -> Any:
    """Return a value, or `_UNREADABLE`: one garbled attribute must not cost the others."""
    try:
        return dataset.get(name)
    except Exception:  # whatever pydicom raises while it converts; the value must not be told
        return _UNREADABLE


def _uid(values: Mapping[str, Any], name: str) -> UID:
    text = values[name].strip() if isinstance(values[name], str) else ""
    if not is_uid(text):
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=SOP)(?=[A-Z])", " ", name)
        raise _unidentified(f"{words} is missing or no valid UID")
    return UID(text)


def _text(values: Mapping[str, Any], name: str) -> str:
    """Return a value as text that its VR allows; empty otherwise."""
    value, representation = values[name], dictionary_VR(name)
    if value is None or value == "":
        return ""
    text = str(value).strip(" \0") if isinstance(value, str | PersonName) else None
    if text is None or not _fits(text, representation):
        if name in _DECIDES_IDENTITY:
            raise _unidentified("Patient ID or its issuer is over-long or holds characters that are not allowed")
        return ""
    return text


def _fits(text: str, representation: str) -> bool:
    if representation == "PN":
        groups = text.split("=")
        fits = len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    elif representation in _PATTERNS:
        return bool(_PATTERNS[representation].fullmatch(text)) and (representation != "DA" or _is_date(text))
    else:
        fits = len(text) <= _LONGEST[representation]
    # U+FFFD stands for bytes that the file's character set does not have.
    return fits and text.isprintable() and not {"\\", "\N{REPLACEMENT CHARACTER}"} & set(text)


def _is_date(text: str) -> bool:
    try:
        return bool(datetime.strptime(text, "%Y%m%d"))  # noqa: DTZ007 - a day, not a moment
    except ValueError:
        return False


def _side(value: Any) -> int:
    if not isinstance(value, int) or not 0 < value <= _MAX_SIDE:
        raise _unidentified("Rows or Columns is missing or out of range")
    return value


def _orientation(value: Any) -> tuple[str, str] | None:
    parts = list(map(str, value)) if isinstance(value, MultiValue | list) else []
    return (parts[0], parts[1]) if len(parts) == 2 and all(map(_ORIENTATION.fullmatch, parts)) else None


def _spacing(value: Any) -> tuple[float, float] | None:
    try:
        rows, columns = (float(part) for part in value)
    except (TypeError, ValueError):
        return None
    return (rows, columns) if 1e-4 < rows < 100 and 1e-4 < columns < 100 else None


def _unidentified(what: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.SOURCE_UNIDENTIFIED,
        f"The image cannot be referred to: {what}.",
        fix="Send the DICOM file as its archive holds it; PNG and JPEG have no study.",
    )


def _differ(what: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.SOURCES_DIFFER, f"{what}.", fix="Give the images of the request, in its order, of one study."
    )
