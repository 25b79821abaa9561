"""Images per second and memory of reading radiographs with all guards, against plain pydicom and Pillow.

    python tests/benchmarks/image_ingest.py [--images FOLDER] [--rounds 3] [--out FILE]

Every file goes the way that ingestion goes: bytes → grey values → at most 1,024 pixels → PNG. *Guarded* is what
ingestion runs: header limits, the killable decoder, exact resampling, quality checks. *Plain* is what one would write
without any of it: pydicom, its look-up tables, Pillow's box filter and PNG writer, in one process. Both run in one
process each (a core for the work; the guarded one's decoder waits while its parent works), in turns on the same files.
Without ``--images`` the files are phantoms of 2,048 pixels in six transfer syntaxes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "platform")]

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from tests.benchmarks.environment import write_result

STORE_SIZE = 1024
SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "jpeg_2000": "1.2.840.10008.1.2.4.90",
}


def plain(data: bytes) -> bytes:
    """Do what ingestion does, with pydicom and Pillow alone."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" or data[:2] == b"\xff\xd8":
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image if image.mode.startswith("I;16") else image.convert("L"))
    else:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
        unit = (values - values.min()) / max(1.0, values.max() - values.min())
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            unit = 1 - unit
        deep = int(dataset.BitsStored) > 8
        pixels = np.rint(unit * (65535 if deep else 255)).astype(np.uint16 if deep else np.uint8)
    scale = min(1.0, STORE_SIZE / max(pixels.shape))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BOX).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def guarded(*, isolated: bool, checked: bool) -> Callable[[bytes], bytes]:
    """Return ingestion's way; without ``isolated`` its decoder runs in this process, to show what isolation costs."""
    from medfilip.imaging import _decode_worker, _jpeg_extended
    from medfilip.imaging.isolation import IsolatedDecoder
    from medfilip.imaging.limits import ImageLimits
    from medfilip.imaging.preprocess import png_encode, to_store
    from medfilip.imaging.quality import assess
    from medfilip.imaging.reader import read_image

    class InProcess(IsolatedDecoder):
        """The decoder's own code, called directly."""

        def _exchange(self, request: dict[str, Any], payload: bytes) -> Any:
            decode = _decode_worker.decode_dicom if request["kind"] == "dicom" else _decode_worker.decode_raster
            return decode(request, payload)

    _jpeg_extended.register()
    limits = ImageLimits()
    decoder = IsolatedDecoder(limits) if isolated else InProcess(limits)

    def work(data: bytes) -> bytes:
        image = read_image(data, limits, decoder)
        if checked:
            assess(image.pixels)
        return png_encode(to_store(image.pixels, STORE_SIZE))

    return work


WAYS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "plain": lambda: plain,
    "guarded": lambda: guarded(isolated=True, checked=True),
    "guarded, no quality checks": lambda: guarded(isolated=True, checked=False),
    "guarded, not isolated, no quality checks": lambda: guarded(isolated=False, checked=False),
}


def write_phantoms(folder: Path, count: int) -> None:
    """Write phantoms of 2,048 pixels, each in every transfer syntax, and as PNG and JPEG."""
    from medfilip.phantom.study import make_study
    from tests.support.dicoms import make_dicom

    for index in range(count):
        pixels = make_study(3, index, size=2048).image
        for name, syntax in SYNTAXES.items():
            window = {"WindowCenter": 2048, "WindowWidth": 4096}
            (folder / f"{index}-{name}.dcm").write_bytes(make_dicom(pixels, syntax=syntax, **window))
        Image.fromarray((pixels.astype(np.uint32) * 16).astype(np.uint16)).save(folder / f"{index}.png")
        Image.fromarray((pixels >> 4).astype(np.uint8)).save(folder / f"{index}.jpg", quality=92)


def measure(way: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Time a way in this process, on files that both ways can read; the fastest round of each file counts."""
    warnings.simplefilter("ignore")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    work = WAYS[way]()
    seconds: dict[str, float] = {}
    for _ in range(rounds):
        for path in files:
            data = path.read_bytes()
            start = time.perf_counter()
            try:
                work(data)
            except Exception:
                continue
            taken = time.perf_counter() - start
            seconds[path.name] = min(taken, seconds.get(path.name, taken))
    return {"seconds": seconds, "peak_mb": _peak_mb("self"), "peak_mb_of_decoder": sum(map(_peak_mb, _children()))}


def _peak_mb(process: str) -> int:
    """Largest resident size of a process so far; what it was started from does not count."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()


def in_turns(folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Run every way in a process of its own, turn by turn, and join the fastest times of each file."""
    joined: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--images", str(folder), "--rounds", "2"]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            kept = joined.setdefault(way, found)
            for name, seconds in found["seconds"].items():
                kept["seconds"][name] = min(seconds, kept["seconds"].get(name, seconds))
            for peak in ("peak_mb", "peak_mb_of_decoder"):
                kept[peak] = max(kept[peak], found[peak])
    return joined


def summarise(joined: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return rates over the files that every way could read."""
    shared = set.intersection(*(set(found["seconds"]) for found in joined.values()))
    total = {way: sum(found["seconds"][name] for name in shared) for way, found in joined.items()}
    return {
        "files": len(shared),
        "ways": {
            way: {
                "images_per_second_and_core": round(len(shared) / total[way], 2),
                "ms_per_image": round(1000 * total[way] / len(shared), 1),
                "against_plain": round(total[way] / total["plain"], 3),
                "peak_mb": found["peak_mb"],
                "peak_mb_of_decoder": found["peak_mb_of_decoder"],
            }
            for way, found in joined.items()
        },
        "isolation_costs": round(
            total["guarded, no quality checks"] / total["guarded, not isolated, no quality checks"] - 1, 3
        ),
    }


def main() -> None:
    """Measure, print, and write a JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of files; phantoms if not given")
    parser.add_argument("--count", type=int, default=4, help="phantoms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="measure one way in this process, for the others")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.images, options.rounds)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.images or Path(temporary)
        if options.images is None:
            write_phantoms(folder, options.count)
        write_result(options.out, summarise(in_turns(folder, options.rounds)))


if __name__ == "__main__":
    main()
