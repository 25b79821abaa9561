"""Pixel Data → stored values, of any kind of image that the limits allow: what the header claims is checked first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.dicom_file import guarded, parse_dicom, text_of
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import EXPLICIT_BIG, JPEG_EXTENDED, NATIVE_SYNTAXES, ImageLimits


@dataclass(frozen=True)
class PixelClaim:
    """What the header says of Pixel Data (PS3.3, section C.7.6.3), before anything is decoded."""

    transfer_syntax: str
    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    photometric: str
    planar_configuration: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the decoded values: ``[frames,] rows, columns[, samples]``."""
        frames = (self.frames,) if self.frames > 1 else ()
        samples = (self.samples,) if self.samples > 1 else ()
        return (*frames, self.rows, self.columns, *samples)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the decoded values."""
        return self.rows * self.columns * self.samples * self.frames * (self.bits_allocated // 8)

    @property
    def unused_low_bits(self) -> int:
        """Bits below the stored ones: old systems keep values at the top of the word (PS3.5, section 8.1.1)."""
        return max(0, self.high_bit + 1 - self.bits_stored)

    def options(self) -> dict[str, Any]:
        """Return the attributes as `pydicom.pixels.Decoder.as_array` takes them."""
        options = {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": self.samples,
            "number_of_frames": self.frames,
            "bits_allocated": self.bits_allocated,
            "bits_stored": self.bits_stored + self.unused_low_bits,
            "pixel_representation": self.pixel_representation,
            "photometric_interpretation": self.photometric,
            "pixel_keyword": "PixelData",
        }
        if self.samples > 1:
            options["planar_configuration"] = self.planar_configuration
        if self.transfer_syntax == JPEG_EXTENDED:
            options["correct_unused_bits"] = False  # lossy values may overshoot; without the top bits white turns black
        return options


def decode_dicom(data: bytes, limits: ImageLimits, decoder: IsolatedDecoder | None = None) -> NDArray[Any]:
    """Decode the stored values of any DICOM image, chest or not, colour or not, one frame or many.

    Parameters
    ----------
    data
        A DICOM Part 10 file, or a bare little-endian data set.
    limits
        Bounds that hold before anything is decoded.
    decoder
        Worker for compressed pixels; without it one is started and ended for this image.

    Returns
    -------
    ndarray
        8 or 16 bit integers ``[frames,] rows, columns[, samples]``, without any look-up table or colour conversion.

    Raises
    ------
    MedfilipError
        ``IMAGE_TOO_LARGE``, ``IMAGE_NOT_DICOM``, ``IMAGE_NO_PIXELS``, ``IMAGE_UNSUPPORTED``, ``IMAGE_UNDECODABLE``,
        ``IMAGE_DECODE_TIMEOUT`` or ``DEPENDENCY_MISSING``.
    """
    dataset = parse_dicom(data, limits)
    return stored_values(dataset, pixel_claim(dataset, limits), limits, decoder)


def pixel_claim(dataset: Dataset, limits: ImageLimits) -> PixelClaim:
    """Read and check what the header says of Pixel Data.

    Raises
    ------
    MedfilipError
        ``IMAGE_NO_PIXELS``, ``IMAGE_UNSUPPORTED``, ``IMAGE_TOO_LARGE``, ``IMAGE_UNDECODABLE``.
    """
    with guarded():
        if "PixelData" not in dataset or "Rows" not in dataset:
            raise MedfilipError(
                ErrorCode.IMAGE_NO_PIXELS,
                "The DICOM file holds no Pixel Data.",
                fix="Send the image object of the study.",
            )
        allocated = int(dataset.get("BitsAllocated") or 0)
        stored = int(dataset.get("BitsStored") or allocated)
        claim = PixelClaim(
            transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            samples=int(dataset.get("SamplesPerPixel") or 1),
            frames=int(dataset.get("NumberOfFrames") or 1),
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=int(dataset.get("HighBit") or stored - 1),
            pixel_representation=int(dataset.get("PixelRepresentation") or 0),
            photometric=text_of(dataset, "PhotometricInterpretation") or "",
            planar_configuration=int(dataset.get("PlanarConfiguration") or 0),
        )
    _check(claim, limits)
    return claim


def _check(claim: PixelClaim, limits: ImageLimits) -> None:
    """Check a claim, from the cheapest reason to refuse to the last."""
    if claim.frames > limits.max_frames or claim.frames < 1:
        raise unsupported(f"Number of Frames is {claim.frames}; the limit is {limits.max_frames}")
    if claim.bits_allocated not in (8, 16):
        raise unsupported(f"Bits Allocated is {claim.bits_allocated}; 8 and 16 are read")
    if not 1 <= claim.bits_stored <= claim.bits_allocated or claim.high_bit >= claim.bits_allocated:
        raise unsupported("Bits Stored or High Bit lies outside Bits Allocated")
    if claim.samples not in (1, 3):
        raise unsupported(f"Samples per Pixel is {claim.samples}; 1 and 3 are read")
    if claim.rows < 1 or claim.columns < 1:
        raise MedfilipError(
            ErrorCode.IMAGE_UNDECODABLE, "Rows or Columns is 0.", fix="Export the image again from its archive."
        )
    if claim.rows * claim.columns > limits.max_pixels or claim.decoded_bytes > limits.max_inflated_bytes:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"Rows x Columns is {claim.rows} x {claim.columns}, in {claim.frames} frames of {claim.samples} samples; "
            f"max_pixels is {limits.max_pixels} and max_inflated_bytes is {limits.max_inflated_bytes}.",
            fix="Export the image at a lower resolution.",
        )


def stored_values(
    dataset: Dataset, claim: PixelClaim, limits: ImageLimits, decoder: IsolatedDecoder | None = None
) -> NDArray[Any]:
    """Decode Pixel Data: uncompressed ones here, which is a copy, compressed ones in a worker that can be killed.

    Raises
    ------
    MedfilipError
        ``IMAGE_UNDECODABLE``, ``IMAGE_DECODE_TIMEOUT`` or ``DEPENDENCY_MISSING``.
    """
    if claim.transfer_syntax in NATIVE_SYNTAXES:
        with guarded():
            values = _native_values(dataset, claim)
    else:  # not inside the guard, whose lock would make threads wait for each other's workers
        data = _pixel_bytes(dataset)
        if decoder is not None:
            values = decoder.decode_dicom(data, claim.transfer_syntax, claim.options(), claim.shape)
        else:
            with IsolatedDecoder(limits) as own:
                values = own.decode_dicom(data, claim.transfer_syntax, claim.options(), claim.shape)
    if claim.transfer_syntax == JPEG_EXTENDED:
        return np.asarray(np.minimum(values, values.dtype.type(2**claim.bits_stored - 1)))
    return np.right_shift(values, claim.unused_low_bits) if claim.unused_low_bits else values


def _pixel_bytes(dataset: Dataset) -> bytes:
    """Return the value of Pixel Data as it stands in the file, whatever representation is claimed for it."""
    with guarded():
        value = dataset.get_item("PixelData").value
    if not isinstance(value, bytes) or not value:
        raise MedfilipError(
            ErrorCode.IMAGE_NO_PIXELS, "Pixel Data are empty.", fix="Send the image object of the study."
        )
    return value


def _native_values(dataset: Dataset, claim: PixelClaim) -> NDArray[Any]:
    """Take uncompressed stored values as they are."""
    data = _pixel_bytes(dataset)
    if claim.photometric != "YBR_FULL_422" and len(data) - claim.decoded_bytes >= claim.columns * claim.samples:
        # pydicom would take the first rows of what may be an image of another size.
        raise MedfilipError(
            ErrorCode.IMAGE_UNDECODABLE,
            f"Pixel Data hold {len(data)} bytes; Rows, Columns and Bits Allocated say {claim.decoded_bytes}.",
            fix="Correct Rows and Columns, or export the image again from its archive.",
        )
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    # Big-endian bytes swap in words of the VR of Pixel Data (PS3.5, annex A.3), so pydicom wants to know it.
    extra: dict[str, Any] = {"pixel_vr": dataset["PixelData"].VR} if claim.transfer_syntax == EXPLICIT_BIG else {}
    index = None if claim.frames > 1 else 0
    pixels: NDArray[Any]
    pixels, _ = decoder.as_array(data, index=index, raw=True, **claim.options(), **extra)
    return np.asarray(pixels)


def unsupported(reason: str) -> MedfilipError:
    """Return the error for an image of a kind that is not read."""
    return MedfilipError(
        ErrorCode.IMAGE_UNSUPPORTED,
        f"The DICOM image is of a kind that is not read: {reason}.",
        fix="Send one greyscale CR or DX frame.",
    )
