"""DICOM Part 10 file → the attributes of its image, read from bytes that nobody vouches for.

pydicom bounds nothing: a file of empty private elements costs it many times its size in memory. Here the bytes
spent on attributes are metered, only the attributes that are used are kept (overlays, private and identifying ones
are skipped unread), and Pixel Data stay undecoded.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.limits import DEFLATED_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, ImageLimits

_INFLATED_AT_ONCE = 1 << 18
_PREAMBLE_BYTES = 132
_PIXEL_DATA = 0x7FE00010
_FIRST_PIXEL_TAG = 0x7FE00000
_READ = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID Modality PresentationIntentType BodyPartExamined StudyDescription "
    "SeriesDescription ProtocolName PerformedProcedureStepDescription RequestedProcedureDescription "
    "AnatomicRegionSequence ViewPosition ViewCodeSequence PatientID PatientSex PatientAge "
    "BurnedInAnnotation ImagerPixelSpacing PixelSpacing SamplesPerPixel PhotometricInterpretation "
    "PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation "
    "PixelPaddingValue PixelPaddingRangeLimit ModalityLUTSequence RescaleSlope RescaleIntercept VOILUTSequence "
    "WindowCenter WindowWidth VOILUTFunction"
)
_TAGS: list[BaseTag | int] = [tag for tag in map(tag_for_keyword, _READ.split()) if tag is not None]
_quiet_lock = threading.RLock()


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
def quiet() -> Iterator[None]:
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
def guarded() -> Iterator[None]:
    """Turn whatever pydicom raises on malformed attributes into ``IMAGE_UNDECODABLE``, and keep it quiet."""
    with quiet():
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


class _HeaderTooLarge(Exception):  # noqa: N818 - becomes a coded error
    """More bytes were read than the attributes of a radiograph have."""


class _Metered(io.BytesIO):
    """Counts the bytes that are read, not those that are skipped."""

    def __init__(self, data: bytes, budget: int) -> None:
        super().__init__(data)
        self.left = budget

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, or raise when the budget is spent."""
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise _HeaderTooLarge
        return data


def parse_dicom(data: bytes, limits: ImageLimits) -> Dataset:
    """Parse the attributes of an image, up to and with its undecoded Pixel Data.

    Parameters
    ----------
    data
        A DICOM Part 10 file, or a bare little-endian data set as old systems write it.
    limits
        ``max_file_bytes``, ``max_header_bytes``, ``max_inflated_bytes`` and ``transfer_syntaxes`` hold.

    Returns
    -------
    Dataset
        The attributes of `_READ` that are there; ``file_meta`` holds the transfer syntax alone.

    Raises
    ------
    MedfilipError
        ``IMAGE_TOO_LARGE``, ``IMAGE_NOT_DICOM`` or, for the transfer syntax, ``IMAGE_UNSUPPORTED``.
    """
    return _parsed(data, limits, _TAGS, with_pixels=True)


def parse_attributes(data: bytes, limits: ImageLimits, keywords: Iterable[str]) -> Dataset:
    """Parse some attributes of an image, under the limits of `parse_dicom` and with its errors, without Pixel Data.

    Parameters
    ----------
    data
        As for `parse_dicom`.
    limits
        As for `parse_dicom`.
    keywords
        DICOM keywords of the attributes; all others are skipped unread.

    Returns
    -------
    Dataset
        The attributes that are there, with Specific Character Set; values are converted when they are looked at.
    """
    tags: list[BaseTag | int] = [tag for tag in map(tag_for_keyword, keywords) if tag is not None]
    return _parsed(data, limits, tags, with_pixels=False)


def _parsed(data: bytes, limits: ImageLimits, tags: list[BaseTag | int], *, with_pixels: bool) -> Dataset:
    check_file_size(data, limits)
    if not looks_like_dicom(data):
        raise _not_dicom("it has neither the DICM prefix nor a DICOM data set at its start")
    try:
        with quiet():
            return _parse(data, limits, tags, with_pixels=with_pixels)
    except MedfilipError:
        raise
    except _HeaderTooLarge:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The attributes before Pixel Data take more than max_header_bytes = {limits.max_header_bytes}.",
            fix="Export the image without private data.",
        ) from None
    except Exception as error:  # struct, EOF, recursion, value errors: a parser on hostile input
        raise _not_dicom(f"its attributes cannot be parsed ({type(error).__name__})") from None


def _parse(data: bytes, limits: ImageLimits, tags: list[BaseTag | int], *, with_pixels: bool) -> Dataset:
    stream = _Metered(data, limits.max_header_bytes)
    stream.seek(_PREAMBLE_BYTES if data[128:_PREAMBLE_BYTES] == b"DICM" else 0)
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=_after_meta))
    begin = stream.tell()
    syntax = str(meta.get("TransferSyntaxUID", "")) or _guess_syntax(data[begin : begin + 6])
    if syntax not in limits.transfer_syntaxes:
        raise MedfilipError(
            ErrorCode.IMAGE_UNSUPPORTED,
            "The transfer syntax of the DICOM file is not one of the accepted ones.",
            fix="Export the image as Explicit VR Little Endian.",
        )
    if syntax == DEFLATED_LITTLE:
        stream = _Metered(_inflate(data[begin:], limits), limits.max_header_bytes)
    implicit, little = syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    dataset = read_dataset(stream, implicit, little, stop_when=_at_pixels, specific_tags=tags)
    if with_pixels:
        dataset.update(_pixel_data(stream, implicit, little, limits))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def _pixel_data(stream: _Metered, implicit: bool, little: bool, limits: ImageLimits) -> Dataset:
    """Read the element Pixel Data, if the stream stands at the group of pixels; its length is that of the file."""
    stream.left = max(limits.max_file_bytes, limits.max_inflated_bytes) + limits.max_header_bytes
    tags: list[BaseTag | int] = [_PIXEL_DATA]
    return read_dataset(stream, implicit, little, stop_when=_after_pixels, specific_tags=tags)


def _after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) >= _FIRST_PIXEL_TAG


def _after_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) > _PIXEL_DATA


def _guess_syntax(start: bytes) -> str:
    """Tell explicit from implicit little endian where the file meta group does not: a VR is two capital letters."""
    return EXPLICIT_LITTLE if start[4:6].isalpha() and start[4:6].isupper() else IMPLICIT_LITTLE


def _inflate(body: bytes, limits: ImageLimits) -> bytes:
    """Inflate a deflated data set (PS3.5, annex A.5) of up to ``max_inflated_bytes``.

    It is counted before it is held: a small file that inflates to gigabytes costs some time, and no memory.
    """
    counter, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for begin in range(0, len(body), _INFLATED_AT_ONCE):
        rest = body[begin : begin + _INFLATED_AT_ONCE]
        while rest and not counter.eof:  # what follows the end stays in the tail for ever
            size += len(counter.decompress(rest, _INFLATED_AT_ONCE))
            rest = counter.unconsumed_tail
            if size > limits.max_inflated_bytes:
                raise MedfilipError(
                    ErrorCode.IMAGE_TOO_LARGE,
                    "The deflated DICOM data set inflates to more than "
                    f"max_inflated_bytes = {limits.max_inflated_bytes}.",
                    fix="Export the image as Explicit VR Little Endian.",
                )
    # The last of it may be counted only when it is asked for, and be missing from the size.
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, size + _INFLATED_AT_ONCE)


def text_of(dataset: Dataset, name: str) -> str | None:
    """Value of an attribute as text; ``None`` when absent, empty or not a single value."""
    value = dataset.get(name)
    return str(value).strip() or None if value is not None and isinstance(value, str) else None


def _not_dicom(reason: str) -> MedfilipError:
    return MedfilipError(ErrorCode.IMAGE_NOT_DICOM, f"The file is not DICOM: {reason}.", fix="Send a DICOM file.")
