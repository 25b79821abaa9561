"""The process in which untrusted compressed pixels are decoded, so that a hostile codestream can only kill itself.

It is started by `medfilip.imaging.isolation` and speaks frames over its standard streams: four bytes with the length
of a JSON header, eight with the length of the payload (both big endian), the header, the payload. Nothing is pickled.
It sees pixel bytes and geometry, never a patient's attributes.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

FRAME = struct.Struct(">IQ")
COLOUR_TOLERANCE = 12  # levels by which JPEG chroma rounding may separate the channels of a grey image


class Refused(Exception):  # noqa: N818 - an answer, not an error of the program
    """An image that is well formed but not acceptable: the answer carries code, message and fix."""


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one frame; ``None`` at the end of the stream."""
    head = stream.read(FRAME.size)
    if len(head) < FRAME.size:
        return None
    header_bytes, payload_bytes = FRAME.unpack(head)
    header = stream.read(header_bytes)
    payload = stream.read(payload_bytes)
    if len(header) < header_bytes or len(payload) < payload_bytes:
        return None
    return json.loads(header), payload


def write_frame(stream: IO[bytes], header: dict[str, Any], payload: bytes | memoryview) -> None:
    """Write one frame and flush it."""
    text = json.dumps(header).encode()
    stream.write(FRAME.pack(len(text), len(payload)))
    stream.write(text)
    stream.write(payload)
    stream.flush()


def decode_dicom(request: dict[str, Any], payload: bytes) -> NDArray[Any]:
    """Decode encapsulated pixel data (PS3.5, annex A.4) to stored values ``[frames,] rows, columns[, samples]``."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    decoder = get_decoder(UID(request["transfer_syntax"]))
    if not decoder.is_available:
        raise Refused(
            "dependency_missing",
            f"No installed library decodes the transfer syntax {decoder.UID.name}.",
            "Install python-gdcm beside medfilip, or export the image with another transfer syntax.",
        )
    pixels: NDArray[Any]
    index = None if request["options"]["number_of_frames"] > 1 else 0
    pixels, _ = decoder.as_array(payload, index=index, raw=True, **request["options"])
    return pixels


def decode_raster(request: dict[str, Any], payload: bytes) -> NDArray[Any]:
    """Decode PNG or JPEG to ``uint8`` or ``uint16`` ``[H, W]``; the size is checked after the header alone."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # the project's own limit follows, and it is an error rather than a warning
    with Image.open(io.BytesIO(payload), formats=["PNG", "JPEG"]) as image:
        if image.width * image.height > request["max_pixels"]:
            raise Refused(
                "image_too_large",
                f"The image has {image.width} x {image.height} pixels; max_pixels is {request['max_pixels']}.",
                "Export the image at a lower resolution.",
            )
        if getattr(image, "n_frames", 1) > 1:
            raise Refused("image_unsupported", "The image has more than one frame.", "Send one frame.")
        ImageOps.exif_transpose(image, in_place=True)  # cameras and scanners leave the turning to the reader
        if image.mode in ("I;16", "I", "I;16B"):
            return np.asarray(image).astype(np.uint16)
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L"))
        if image.mode in ("RGB", "P", "LA", "RGBA"):
            return _grey_of_colour(np.asarray(image.convert("RGB")))
        raise Refused("image_unsupported", f"The image mode {image.mode} is not greyscale.", "Send a greyscale image.")


def _grey_of_colour(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take one channel of a grey image that was saved in colour; a coloured image is refused."""
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    if int(spread.max(initial=0)) > COLOUR_TOLERANCE:
        raise Refused("image_unsupported", "The image has colours.", "Send a greyscale image.")
    return np.ascontiguousarray(rgb[:, :, 1])


def limit_memory(extra_bytes: int) -> None:
    """Let this process add at most ``extra_bytes`` of address space to what it has now."""
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return  # only Linux says how much is used; elsewhere the timeout and the header limits stand alone
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = used + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def answer(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    """Decode one request; every failure becomes a header without pixels."""
    decode = decode_dicom if request["kind"] == "dicom" else decode_raster
    try:
        pixels = decode(request, payload)
    except Refused as refused:
        code, message, fix = refused.args
        return {"code": code, "message": message, "fix": fix}, b""
    except MemoryError:
        return {"code": "image_undecodable", "reason": "it needs more memory than decode_memory_bytes"}, b""
    except Exception as error:  # whatever a codec raises on hostile input is the same answer
        return {"code": "image_undecodable", "reason": f"the decoder failed with {type(error).__name__}"}, b""
    values = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return {"shape": list(values.shape), "dtype": values.dtype.str}, values.data.cast("B")


def main() -> None:
    """Answer frames until the parent closes the pipe."""
    import warnings

    import pydicom.pixels  # loaded before memory is limited, and before the first request waits for it

    from medfilip.imaging import _jpeg_extended

    warnings.simplefilter("ignore")
    _jpeg_extended.register()
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    memory_bytes, timeout_s = int(sys.argv[1]), float(sys.argv[2])
    limit_memory(memory_bytes)
    write_frame(stdout, {"ready": pydicom.__version__}, b"")
    while (frame := read_frame(stdin)) is not None:
        # The parent kills a slow worker; the alarm is for the case that the parent itself is gone.
        signal.setitimer(signal.ITIMER_REAL, timeout_s + 1)
        header, payload = answer(*frame)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(stdout, header, payload)


if __name__ == "__main__":
    main()
