"""DICOM radiographs → pixels, for files that nobody vouches for.

The order is the point: the file's size, then its header, then what the header claims, and only then a decoder. What
is accepted is one greyscale projection of a chest; everything else gets a code that says what it was instead.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag
from pydicom.uid import UID

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import (
    DEFLATED_LITTLE,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NATIVE_SYNTAXES,
    ImageLimits,
)
from medfilip.imaging.radiograph import Radiograph, RadiographView, pixel_hash
from medfilip.imaging.windowing import to_monochrome2

_PREAMBLE_BYTES = 132
_PROJECTION = frozenset({"CR", "DX"})
_TOMOGRAPHIC = frozenset({"CT", "MR", "NM", "PT", "US", "OPT", "IVUS", "IVOCT"})
_OTHER_BODY_PART_WORDS = (
    "ABDOMEN ANKLE ARM BREAST CALCANEUS CALF CSPINE CERVICALSPINE CLAVICLE COCCYX ELBOW EXTREMITY EYE "
    "FACE FEMUR FINGER FOOT FOREARM HAND HEAD HIP HUMERUS JAW KNEE LEG LSPINE LUMBARSPINE MANDIBLE "
    "MAXILLA NECK NOSE ORBIT PATELLA PELVIS RADIUS SACRUM SCALP SHOULDER SKULL SSPINE TEETH THIGH "
    "THUMB TIBIA TOE ULNA WHOLEBODY WRIST ZYGOMA"
)
_OTHER_BODY_PARTS = frozenset(_OTHER_BODY_PART_WORDS.split())
"""Body Part Examined values (PS3.16, annex L, without spaces and underscores) that are surely not a chest."""

_VIEWS: dict[str, RadiographView] = {
    "PA": "frontal",
    "AP": "frontal",
    "LL": "lateral",
    "RL": "lateral",
    "LATERAL": "lateral",
    "LAT": "lateral",
}
_quiet_lock = threading.RLock()


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
        ``IMAGE_UNDECODABLE``, ``IMAGE_DECODE_TIMEOUT``, or ``DEPENDENCY_MISSING`` for a transfer syntax that no
        installed library decodes.
    """
    check_file_size(data, limits)
    with _quiet():
        dataset = _parse(data, limits)
    with _guarded():
        _check_content(dataset, limits)
        syntax, options, stored_bytes = _pixel_options(dataset)
    if syntax in NATIVE_SYNTAXES:
        with _guarded():
            stored = _native_values(dataset, stored_bytes, options)
    else:  # not inside the guard, whose lock would make threads wait for each other's workers
        stored = _isolated_values(stored_bytes, syntax, options, limits, decoder)
    with _guarded():
        return _radiograph(dataset, to_monochrome2(stored, dataset))


def check_file_size(data: bytes, limits: ImageLimits) -> None:
    """Refuse a file of more than ``max_file_bytes``."""
    if len(data) > limits.max_file_bytes:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The image file has {len(data)} bytes; max_file_bytes is {limits.max_file_bytes}.",
            fix="Send one radiograph per file.",
        )


def looks_like_dicom(data: bytes) -> bool:
    """Whether the bytes start like a Part 10 file (PS3.10, section 7.1) or a bare little-endian data set."""
    return data[128:_PREAMBLE_BYTES] == b"DICM" or data[:2] in (b"\x08\x00", b"\x02\x00")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings and log lines quote attribute values, names of patients included."""
    logger = logging.getLogger("pydicom")
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        was_disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = was_disabled


@contextmanager
def _guarded() -> Iterator[None]:
    """Turn whatever pydicom raises on malformed attributes into ``IMAGE_UNDECODABLE``, and keep it quiet."""
    with _quiet():
        try:
            yield
        except MedfilipError:
            raise
        except Exception as error:
            raise MedfilipError(
                ErrorCode.IMAGE_UNDECODABLE,
                f"The DICOM attributes or pixels cannot be read ({type(error).__name__}).",
                fix="Validate the file, and export it again from its archive.",
            ) from None  # the cause may quote attribute values


def _parse(data: bytes, limits: ImageLimits) -> Dataset:
    """Parse all attributes; pixel data stay undecoded bytes, and a deflated data set is inflated up to its bound."""
    if not looks_like_dicom(data):
        raise _not_dicom("it has neither the DICM prefix nor a DICOM data set at its start")
    stream = io.BytesIO(data)
    stream.seek(_PREAMBLE_BYTES if data[128:_PREAMBLE_BYTES] == b"DICM" else 0)
    try:
        meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=_after_meta))
        body = data[stream.tell() :]
        syntax = str(meta.get("TransferSyntaxUID", "")) or _guess_syntax(body)
        if syntax not in limits.transfer_syntaxes:
            raise MedfilipError(
                ErrorCode.IMAGE_UNSUPPORTED,
                "The transfer syntax of the DICOM file is not one of the accepted ones.",
                fix="Export the image as Explicit VR Little Endian.",
            )
        if syntax == DEFLATED_LITTLE:
            body = _inflate(body, limits)
        dataset = read_dataset(io.BytesIO(body), syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG)
    except MedfilipError:
        raise
    except Exception as error:  # struct, EOF, recursion, value errors: a parser on hostile input
        raise _not_dicom(f"its attributes cannot be parsed ({type(error).__name__})") from None
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def _after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _guess_syntax(body: bytes) -> str:
    """Tell explicit from implicit little endian where the file meta group does not: a VR is two capital letters."""
    return EXPLICIT_LITTLE if body[4:6].isalpha() and body[4:6].isupper() else IMPLICIT_LITTLE


def _inflate(body: bytes, limits: ImageLimits) -> bytes:
    """Inflate a deflated data set (PS3.5, annex A.5) up to ``max_inflated_bytes``."""
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, limits.max_inflated_bytes + 1)
    if len(inflated) > limits.max_inflated_bytes:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The deflated DICOM data set inflates to more than max_inflated_bytes = {limits.max_inflated_bytes}.",
            fix="Export the image as Explicit VR Little Endian.",
        )
    return inflated


def _check_content(dataset: Dataset, limits: ImageLimits) -> None:
    """Check what the header claims, from the cheapest reason to refuse to the last."""
    if "PixelData" not in dataset or "Rows" not in dataset:
        raise MedfilipError(
            ErrorCode.IMAGE_NO_PIXELS, "The DICOM file holds no Pixel Data.", fix="Send the image object of the study."
        )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    allocated = int(dataset.get("BitsAllocated") or 0)
    if frames > limits.max_frames:
        raise _unsupported(f"Number of Frames is {frames}; the limit is {limits.max_frames}")
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or _text(dataset, "PhotometricInterpretation") not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        raise _unsupported("Photometric Interpretation is not MONOCHROME1 or MONOCHROME2")
    if allocated not in (8, 16):
        raise _unsupported(f"Bits Allocated is {allocated}; 8 and 16 are read")
    decoded_bytes = rows * columns * allocated // 8
    if rows * columns > limits.max_pixels or decoded_bytes > limits.max_inflated_bytes:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"Rows x Columns is {rows} x {columns}; max_pixels is {limits.max_pixels}.",
            fix="Export the image at a lower resolution.",
        )
    _check_chest(dataset)


def _check_chest(dataset: Dataset) -> None:
    modality = (_text(dataset, "Modality") or "").upper()
    if modality in _TOMOGRAPHIC:
        raise _unsupported("Modality is a tomographic one, not CR or DX")
    body_part = (_text(dataset, "BodyPartExamined") or "").upper().replace(" ", "").replace("_", "")
    if modality not in _PROJECTION or body_part in _OTHER_BODY_PARTS:
        field = "Body Part Examined" if modality in _PROJECTION else "Modality"
        raise MedfilipError(
            ErrorCode.IMAGE_NOT_CHEST,
            f"{field} says that the image is not a chest radiograph (CR or DX).",
            fix="Send chest radiographs only, or correct the attribute.",
        )


def _pixel_options(dataset: Dataset) -> tuple[str, dict[str, Any], bytes]:
    """Return transfer syntax, the attributes a decoder needs, and the value of Pixel Data."""
    options = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.get("BitsStored") or dataset.BitsAllocated),
        "pixel_representation": int(dataset.get("PixelRepresentation") or 0),
        "photometric_interpretation": _text(dataset, "PhotometricInterpretation"),
        "pixel_keyword": "PixelData",
    }
    return str(dataset.file_meta.TransferSyntaxUID), options, dataset.PixelData


def _native_values(dataset: Dataset, data: bytes, options: dict[str, Any]) -> NDArray[Any]:
    """Take uncompressed stored values ``[rows, columns]`` as they are."""
    syntax = dataset.file_meta.TransferSyntaxUID
    # Big-endian bytes swap in words of the VR of Pixel Data (PS3.5, annex A.3), so pydicom wants to know it.
    extra: dict[str, Any] = {"pixel_vr": dataset["PixelData"].VR} if syntax == EXPLICIT_BIG else {}
    pixels: NDArray[Any]
    pixels, _ = get_decoder(syntax).as_array(data, index=0, raw=True, **options, **extra)
    return pixels


def _isolated_values(
    data: bytes, syntax: str, options: dict[str, Any], limits: ImageLimits, decoder: IsolatedDecoder | None
) -> NDArray[Any]:
    """Decode encapsulated stored values ``[rows, columns]`` in a worker."""
    if decoder is not None:
        return decoder.decode_dicom(data, syntax, options)
    with IsolatedDecoder(limits) as own:
        return own.decode_dicom(data, syntax, options)


def _radiograph(dataset: Dataset, pixels: NDArray[Any]) -> Radiograph:
    return Radiograph(
        pixels=pixels,
        view=_VIEWS.get((_text(dataset, "ViewPosition") or "").upper(), "unknown"),
        spacing_mm=_spacing(dataset),
        photometric=_text(dataset, "PhotometricInterpretation") or "",
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        bits_stored=int(dataset.get("BitsStored") or dataset.BitsAllocated),
        pixel_hash=pixel_hash(pixels),
        study_uid=_text(dataset, "StudyInstanceUID"),
        sop_uid=_text(dataset, "SOPInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        sex=_text(dataset, "PatientSex"),
        age=_text(dataset, "PatientAge"),
    )


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


def _text(dataset: Dataset, name: str) -> str | None:
    """Value of an attribute as text; ``None`` when absent, empty or not a single value."""
    value = dataset.get(name)
    return str(value).strip() or None if value is not None and isinstance(value, str) else None


def _not_dicom(reason: str) -> MedfilipError:
    return MedfilipError(ErrorCode.IMAGE_NOT_DICOM, f"The file is not DICOM: {reason}.", fix="Send a DICOM file.")


def _unsupported(reason: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.IMAGE_UNSUPPORTED,
        f"The DICOM image is of a kind that is not read: {reason}.",
        fix="Send one greyscale CR or DX frame.",
    )
