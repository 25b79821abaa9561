"""JPEG Extended with 12 bits (PS3.5, annex A.4.1), which pydicom leaves to a decoder under the GPL.

GDCM decodes it too, but pydicom's plugin for GDCM refuses to ask. Its values equal those of libjpeg-turbo to the bit on
the files they were compared on.
"""

from __future__ import annotations

from typing import Any

from pydicom.pixels.decoders.base import DecodeRunner, JPEGExtended12BitDecoder
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("python-gdcm>=3.0.24",)}


def is_available(uid: str) -> bool:
    """Whether the transfer syntax can be decoded here: pydicom asks."""
    try:
        import gdcm  # noqa: F401
    except ImportError:
        return False
    return uid in DECODER_DEPENDENCIES


def register() -> None:
    """Offer the decoder to pydicom; its other plugins are asked first."""
    if "medfilip" not in JPEGExtended12BitDecoder._available:
        JPEGExtended12BitDecoder.add_plugin("medfilip", (__name__, "decode_frame"))


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame to little-endian 16-bit values."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image: Any = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation)))
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str.__str__(runner.transfer_syntax))))
    # The process has 12 bits, whatever Bits Stored says: with fewer GDCM cuts what lossy coding let overshoot.
    image.SetPixelFormat(gdcm.PixelFormat(runner.samples_per_pixel, 16, 12, 11, 0))
    values: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    return values
