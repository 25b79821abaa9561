"""Mutated image files: a few made here, damaged in ways that are named by integers and so can be made again.

Nothing of others is kept: a damaged file is the name of a base and the seeds of its damages, and `seeds.json` holds
those whose outcome was new when they were found.
"""

import io
import struct
import tempfile
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tests.support.dicoms import make_dicom

_INTERESTING = (0, 1, 2, 3, 7, 8, 15, 16, 17, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFF)
_TAGS = (0x0002, 0x0008, 0x0018, 0x0028, 0x7FE0, 0xFFFE)
_IMAGE_PIXEL = (0x0002, 0x0004, 0x0006, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103, 0x0120, 0x1050, 0x1051)
_VRS = (b"SQ", b"UN", b"OB", b"OW", b"US", b"SS", b"DS", b"IS", b"CS", b"UT", b"AT", b"FD", b"ZZ", b"\0\0")


@dataclass(frozen=True)
class Recipe:
    """A base and the damages done to it one after the other."""

    base: str
    seeds: tuple[int, ...]

    def make(self) -> bytes:
        """Return the damaged file."""
        data = bases()[self.base]
        for seed in self.seeds:
            data = mutate(data, seed)
        return data


@cache
def bases() -> dict[str, bytes]:
    """Return undamaged files by name: each way of storing pixels that the reader knows."""
    y, x = np.mgrid[0:48, 0:64]
    pixels = ((x * 37 + y * 53 + (x * y) % 97) % 4096).astype(np.uint16)
    small = (pixels >> 4).astype(np.uint8)
    files = {
        name: make_dicom(pixels, syntax=syntax)
        for name, syntax in {
            "explicit": "1.2.840.10008.1.2.1",
            "implicit": "1.2.840.10008.1.2",
            "deflated": "1.2.840.10008.1.2.1.99",
            "big_endian": "1.2.840.10008.1.2.2",
            "rle": "1.2.840.10008.1.2.5",
            "jpeg_ls": "1.2.840.10008.1.2.4.80",
            "jpeg_2000": "1.2.840.10008.1.2.4.90",
        }.items()
    }
    files["signed"] = make_dicom(pixels.astype(np.int16) - 2048, bits=16, RescaleSlope=1.5, RescaleIntercept=-7)
    files["luts"] = make_dicom(pixels, ModalityLUTSequence=[_lut(4096, 16)], VOILUTSequence=[_lut(4096, 12)])
    files["window"] = make_dicom(pixels, WindowCenter=[2048, 100], WindowWidth=[4096, 50], PixelPaddingValue=0)
    files["nested"] = make_dicom(pixels, AnatomicRegionSequence=[_code("Chest")], ViewCodeSequence=[_code("AP")])
    files["jpeg"] = _encapsulated(small, _raster(small, "JPEG"), "1.2.840.10008.1.2.4.50")
    files |= {name: _by_gdcm(pixels, name) for name in ("JPEGLosslessProcess14_1", "JPEGExtendedProcess2_4")}
    files["frames"] = make_dicom(np.stack([small, small]).reshape(96, 64), bits=8, Rows=48, NumberOfFrames=2)
    files["colour"] = make_dicom(
        np.dstack([small] * 3), bits=8, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0
    )
    files |= {
        "png": _raster(small, "PNG"),
        "png_16": _raster(pixels, "PNG"),
        "png_colour": _raster(np.dstack([small] * 3), "PNG"),
        "png_bits": _raster(small > 99, "PNG"),
        "jpeg_file": _raster(small, "JPEG"),
        "jpeg_progressive": _raster(np.dstack([small] * 3), "JPEG", progressive=True),
    }
    return files


def _lut(entries: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, 0, bits])
    item.add_new("LUTData", "US", [i * (2**bits - 1) // entries for i in range(entries)])
    return item


def _code(meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "SCT", meaning
    return item


def _raster(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _encapsulated(pixels: np.ndarray, frame: bytes, syntax: str) -> bytes:
    import pydicom

    file = pydicom.dcmread(io.BytesIO(make_dicom(pixels, bits=8)))
    file.file_meta.TransferSyntaxUID = UID(syntax)
    file.PixelData = encapsulate([frame])
    file["PixelData"].VR, file["PixelData"].is_undefined_length = "OB", True
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _by_gdcm(pixels: np.ndarray, syntax: str) -> bytes:
    """Encode with the one library at hand that encodes these processes of JPEG; it works on files."""
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/source.dcm", f"{folder}/target.dcm"
        Path(source).write_bytes(make_dicom(pixels))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(source)
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return Path(target).read_bytes()


def mutate(data: bytes, seed: int) -> bytes:
    """Damage a file in one way: a pure function of its bytes and the seed."""
    rng = np.random.default_rng(seed)
    damage = _DAMAGES[int(rng.integers(len(_DAMAGES)))]
    damaged = damage(bytearray(data) or bytearray(b"\0"), rng)
    return _with_checksums(damaged) if damaged[:4] == b"\x89PNG" and rng.random() < 0.8 else bytes(damaged)


def _flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return data


def _overwrite(data: bytearray, rng: np.random.Generator) -> bytearray:
    size = int(rng.choice([1, 2, 4]))
    at = int(rng.integers(len(data)))
    value = _INTERESTING[int(rng.integers(len(_INTERESTING)))] % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, "little" if rng.random() < 0.5 else "big")
    return data


def _delete(data: bytearray, rng: np.random.Generator) -> bytearray:
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 65))]
    return data


def _repeat(data: bytearray, rng: np.random.Generator) -> bytearray:
    at = int(rng.integers(len(data)))
    chunk = data[at : at + int(rng.integers(1, 257))]
    data[at:at] = chunk * int(rng.integers(1, 33))
    return data


def _insert(data: bytearray, rng: np.random.Generator) -> bytearray:
    at = int(rng.integers(len(data)))
    data[at:at] = rng.bytes(int(rng.integers(1, 65)))
    return data


def _truncate(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(len(data)))]


def _splice(data: bytearray, rng: np.random.Generator) -> bytearray:
    other = list(bases().values())[int(rng.integers(len(bases())))]
    return data[: int(rng.integers(len(data)))] + other[int(rng.integers(len(other))) :]


def _retag(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Give an attribute of the image another value, length or representation."""
    group = _TAGS[int(rng.integers(len(_TAGS)))]
    element = struct.pack("<H", _IMAGE_PIXEL[int(rng.integers(len(_IMAGE_PIXEL)))]) if group == 0x0028 else b""
    places = [at for at in _places(data, struct.pack("<H", group) + element) if at + 12 <= len(data)]
    if not places:
        return _overwrite(data, rng)
    at = places[int(rng.integers(len(places)))]
    if rng.random() < 0.25:
        data[at + 4 : at + 6] = _VRS[int(rng.integers(len(_VRS)))]
    else:
        where = at + int(rng.choice([4, 6, 8, 10]))
        size = int(rng.choice([2, 4]))
        value = _INTERESTING[int(rng.integers(len(_INTERESTING)))] % (1 << 8 * size)
        data[where : where + size] = value.to_bytes(size, "little")
    return data


def _places(data: bytearray, pattern: bytes) -> list[int]:
    places, at = [], data.find(pattern)
    while at >= 0 and len(places) < 64:
        places.append(at)
        at = data.find(pattern, at + 1)
    return places


def _with_checksums(data: bytearray) -> bytes:
    """Correct the checksums of a PNG, so that a decoder looks at the damage behind them."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


_DAMAGES = (_flip, _overwrite, _delete, _repeat, _insert, _truncate, _splice, _retag, _retag, _retag)
