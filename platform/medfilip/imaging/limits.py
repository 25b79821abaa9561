"""What an image from outside may cost: bounds that are checked before anything is decoded.

A radiograph is a few megapixels. Whatever asks for more than these limits is an attack or a mistake, and both are
cheaper to refuse from the header than to survive in the decoder.
"""

from __future__ import annotations

from pydantic import Field

from medfilip.core.settings import Settings

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"

NATIVE_SYNTAXES = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED_LITTLE, EXPLICIT_BIG})
"""Transfer syntaxes whose pixels are not compressed (PS3.5, section 10.1 and annex A); decoding them is a copy."""

COMPRESSED_SYNTAXES = frozenset(
    {
        "1.2.840.10008.1.2.4.50",  # JPEG Baseline (process 1)
        JPEG_EXTENDED,  # process 2 and 4
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless (process 14)
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless SV1 (process 14, selection value 1)
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
        "1.2.840.10008.1.2.4.91",  # JPEG 2000
        "1.2.840.10008.1.2.5",  # RLE Lossless
    }
)
"""Transfer syntaxes with encapsulated pixels (PS3.5, annex A.4); only the isolated worker decodes them."""


class ImageLimits(Settings):
    """Bounds on one image from outside; each holds before what it bounds is done."""

    max_file_bytes: int = Field(default=64 * 2**20, gt=0, description="size of a file as received")
    max_pixels: int = Field(default=40_000_000, gt=0, description="rows times columns of one frame")
    max_header_bytes: int = Field(
        default=4 * 2**20, gt=0, description="attributes of a DICOM file, those that are skipped unread not counted"
    )
    max_frames: int = Field(default=64, ge=1, description="frames that are decoded; a radiograph has one")
    max_inflated_bytes: int = Field(
        default=256 * 2**20,
        gt=0,
        description="a deflated DICOM data set when inflated, and decoded pixels",
    )
    decode_timeout_s: float = Field(
        default=20.0, gt=0, description="seconds the isolated decoder may take for an image"
    )
    decode_memory_bytes: int = Field(
        default=2 * 2**30, gt=0, description="address space the isolated decoder may add to what it needs to start"
    )
    transfer_syntaxes: tuple[str, ...] = Field(
        tuple(sorted(NATIVE_SYNTAXES | COMPRESSED_SYNTAXES)), description="DICOM transfer syntax UIDs that are accepted"
    )
    accept_burned_in: bool = Field(
        default=False, description="read images whose header says that annotation, maybe a name, is in the pixels"
    )
