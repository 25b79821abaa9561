"""How well view, polarity, turn, frame and "no chest" are told from pixels, on real images and on what is none.

Usage: ``python -m tests.benchmarks.view_quality [--data FOLDER] [--not-chest FOLDER ...] [--list] [--out OUT.json]``.
Patients are split by a hash: thresholds were set on ``dev`` (60 %), ``check`` was only measured. Every image is judged
as it is, and turned, negated, mirrored and framed by this script. ``--not-chest`` adds folders of other images, such as
those inside scikit-image; ``--list`` names what was judged wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from medfilip.imaging.quality import Assessment, assess
from medfilip.imaging.thumbnail import Box, content_box
from tests.benchmarks.environment import write_result
from tests.benchmarks.not_chests import dicom_files, folder_images, rendered, sample_photos

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Real:
    """One real image and what its metadata say of it."""

    name: str
    source: str
    view: str
    part: str
    pixels: Pixels


def part_of(patient: str) -> str:
    """Return the split of a patient."""
    return "dev" if int(hashlib.sha256(f"view-split:{patient}".encode()).hexdigest(), 16) % 100 < 60 else "check"


def load(data: Path) -> list[Real]:
    """Load the real images."""
    folder = data / "cxr_images" / "open"
    images = []
    for row in pq.read_table(folder / "metadata.parquet").to_pylist():
        with Image.open(folder / row["image_path"]) as image:
            pixels = np.asarray(image.convert("L"))
        view = "lateral" if row["view"] == "L" else "frontal"
        images.append(Real(row["image_id"], row["source"], view, part_of(row["patient_id"]), pixels))
    return images


def groups(images: list[Real]) -> dict[str, list[Real]]:
    """Group images by split, view and source, and all frontals of a split together."""
    named: dict[str, list[Real]] = {}
    for part in ("dev", "check"):
        own = [image for image in images if image.part == part]
        for source in sorted({image.source for image in own}):
            named[f"{part} {source}"] = [i for i in own if i.source == source and i.view == "frontal"]
        named[f"{part} ALL FRONTAL"] = [image for image in own if image.view == "frontal"]
        named[f"{part} LATERAL"] = [image for image in own if image.view == "lateral"]
    return named


def rate(found: Iterable[bool]) -> float:
    """Share of true values, in percent."""
    values = list(found)
    return round(100 * sum(values) / len(values), 2) if values else float("nan")


def as_they_are(named: dict[str, list[Real]], judged: dict[str, Assessment]) -> dict[str, Any]:
    """Judge the images as they are: views, and false alarms of everything else."""
    print("\nAs they are (percent)     n  frontal lateral unknown | negative  turned no chest collimated")
    table = {}
    for name, images in named.items():
        own = [judged[image.name] for image in images]
        row = {view: rate(a.view == view for a in own) for view in ("frontal", "lateral", "unknown")}
        row["negative"] = rate(a.inverted for a in own)
        row["turned"] = rate(a.rotation != 0 for a in own)
        row["no_chest"] = rate(a.not_chest_reason is not None for a in own)
        row["collimated"] = rate(a.collimated for a in own)
        numbers = [f"{value:8.2f}" for value in row.values()]
        print(f"{name:20s} {len(own):6d} {''.join(numbers[:3])} | {''.join(numbers[3:])}")
        table[name] = {"n": len(own), **row}
    return table


CHANGES: dict[str, tuple[int, bool, Callable[[Pixels], Pixels]]] = {
    "as is": (0, False, lambda p: p),
    "mirror": (0, False, lambda p: p[:, ::-1]),
    "negative": (0, True, lambda p: 255 - p),
    "90": (90, False, lambda p: np.rot90(p, 1)),
    "180": (180, False, lambda p: np.rot90(p, 2)),
    "270": (270, False, lambda p: np.rot90(p, 3)),
    "neg 90": (90, True, lambda p: 255 - np.rot90(p, 1)),
    "neg 180": (180, True, lambda p: 255 - np.rot90(p, 2)),
}
"""Clockwise turn that sets the copy upright, whether it is a negative, and how it is made."""


def changed(named: dict[str, list[Real]]) -> dict[str, Any]:
    """Judge turned, negated and mirrored copies: how many have turn and polarity both told rightly."""
    everything = {image.name: image for images in named.values() for image in images}
    judged = {
        (name, change): assess(np.ascontiguousarray(apply(image.pixels)))
        for name, image in everything.items()
        for change, (_, _, apply) in CHANGES.items()
    }
    print("\nChanged copies: turn and polarity both told rightly (percent); lost = called no chest")
    print(f"{'':20s}     n" + "".join(f"{name:>9s}" for name in CHANGES) + "     lost")
    table: dict[str, Any] = {}
    for name, images in named.items():
        row: dict[str, Any] = {}
        for change, (turn, negative, _) in CHANGES.items():
            told = [judged[image.name, change] for image in images]
            row[change] = rate(a.rotation == turn and a.inverted is negative for a in told)
        row["lost"] = rate(judged[i.name, c].not_chest_reason is not None for i in images for c in CHANGES)
        print(f"{name:20s}{len(images):6d}" + "".join(f"{value:9.2f}" for value in row.values()))
        table[name] = {"n": len(images), **row}
    table["confusion"] = {name: _confusion(named[name], judged) for name in ("check ALL FRONTAL", "check LATERAL")}
    return table


def _confusion(images: list[Real], judged: dict[tuple[str, str], Assessment]) -> dict[str, Any]:
    """Confusion of turn and polarity: true rows, told columns."""
    print(
        f"\nConfusion, {images[0].part} {images[0].view} (n = {len(images)}); columns: told turn 0 90 180 270, negative"
    )
    table = {}
    for change in CHANGES:
        told = [judged[image.name, change] for image in images]
        row = [sum(a.rotation == turn for a in told) for turn in (0, 90, 180, 270)] + [sum(a.inverted for a in told)]
        print(f"  {change:10s}" + "".join(f"{count:7d}" for count in row))
        table[change] = dict(zip(("0", "90", "180", "270", "negative"), row, strict=True))
    return table


def framed(named: dict[str, list[Real]]) -> dict[str, Any]:
    """Put constant frames around images; how well is the exposed field found again, and what else changes."""
    rng = np.random.default_rng(4)
    print("\nFramed by 5-30 % a side, letterboxed to a square: overlap (IoU) of the box with the image's own box")
    print(f"{'':20s} {'frame':10s}   mean     p1  >=0.95 | flagged frontal negative turned no chest")
    table: dict[str, Any] = {}
    for name in ("dev ALL FRONTAL", "check ALL FRONTAL", "check LATERAL"):
        for kind in ("black", "white", "grey", "letterbox"):
            overlaps, told = [], []
            for image in named[name]:
                pixels, top, left = _frame(image.pixels, kind, rng)
                found = assess(pixels)
                own = content_box(image.pixels)
                assert own is not None
                overlaps.append(_overlap(found.content_box, (own[0] + top, own[1] + left, own[2] + top, own[3] + left)))
                told.append(found)
            row = {
                "mean": round(float(np.mean(overlaps)), 4),
                "p1": round(float(np.percentile(overlaps, 1)), 4),
                "at_least_95": rate(o >= 0.95 for o in overlaps),
                "collimated": rate(a.collimated for a in told),
                "frontal": rate(a.view == "frontal" for a in told),
                "negative": rate(a.inverted for a in told),
                "turned": rate(a.rotation != 0 for a in told),
                "no_chest": rate(a.not_chest_reason is not None for a in told),
            }
            print(f"{name:20s} {kind:10s}" + "".join(f"{value:8.3f}" for value in row.values()))
            table[f"{name} {kind}"] = row
    return table


def _frame(pixels: Pixels, kind: str, rng: np.random.Generator) -> tuple[Pixels, int, int]:
    """Frame an image; return it, and where its first pixel lies."""
    height, width = pixels.shape
    if kind == "letterbox":
        side = max(height, width)
        side += side // 4 if height == width else 0
        top, left = (side - height) // 2, (side - width) // 2
        out = np.zeros((side, side), np.uint8)
    else:
        top, bottom = (rng.uniform(0.05, 0.3, 2) * height).astype(int)
        left, right = (rng.uniform(0.05, 0.3, 2) * width).astype(int)
        level = {"black": 0, "white": 255, "grey": int(rng.integers(40, 200))}[kind]
        out = np.full((height + top + bottom, width + left + right), level, np.uint8)
    out[top : top + height, left : left + width] = pixels
    return out, int(top), int(left)


def _overlap(a: Box, b: Box) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    return shared / both


def not_chests(data: Path, folders: list[Path], *, names: bool) -> dict[str, Any]:
    """How many images that are no chest are told, by kind; and chest files in DICOM that are refused."""
    sets = {
        "DICOM, not chest": list(dicom_files(data, chest=False)),
        "DICOM, chest": list(dicom_files(data, chest=True)),
        "sample photographs": list(sample_photos()),
        "rendered": list(rendered()),
        **{f"folder {folder.name}": list(folder_images(folder)) for folder in folders},
    }
    print("\nNo chest                     n   told  turned/negated  reasons")
    table = {}
    for name, images in sets.items():
        told = [(label, assess(pixels)) for label, pixels in images]
        found = [a.not_chest_reason for _, a in told if a.not_chest_reason]
        counts = {reason: found.count(reason) for reason in sorted(set(found))}
        wild = sum(a.not_chest_reason is None and (a.inverted or a.rotation != 0) for _, a in told)
        table[name] = {"n": len(told), "told": len(found), "changed": wild, "reasons": counts}
        print(f"{name:24s} {len(told):5d} {len(found):6d} {wild:6d}  {counts}")
        for label, a in told:
            if names and (a.not_chest_reason is None) != (name == "DICOM, chest"):
                print(f"    {label}: chest {a.chest_score:.2f}, {a.view}, negative {a.inverted}, turn {a.rotation}")
    return table


def small(named: dict[str, list[Real]]) -> dict[str, Any]:
    """Shrink frontals of dev and see what is left of the answers."""
    table = {}
    print("\nShrunk to a long side of (frontals of dev, every 4th)  frontal negative turned no chest")
    for side in (256, 128, 64, 48, 32, 24):
        told = []
        for image in named["dev ALL FRONTAL"][::4]:
            scaled = Image.fromarray(image.pixels)
            scaled.thumbnail((side, side), Image.Resampling.BOX)
            told.append(assess(np.asarray(scaled)))
        row = [rate(a.view == "frontal" for a in told), rate(a.inverted for a in told)]
        row += [rate(a.rotation != 0 for a in told), rate(a.not_chest_reason is not None for a in told)]
        print(f"{side:6d} px" + "".join(f"{value:8.2f}" for value in row))
        table[str(side)] = dict(zip(("frontal", "negative", "turned", "no_chest"), row, strict=True))
    return table


def speed(pixels: Pixels) -> dict[str, float]:
    """Milliseconds per image by its side; the median of several."""
    table = {}
    for side in (64, 512, 1024, 2048, 4096):
        scaled = np.asarray(Image.fromarray(pixels).resize((side, side)))
        copies: list[Pixels] = [scaled, scaled.astype(np.uint16) * 257]
        for grey in copies:
            took = []
            for _ in range(15):
                start = time.perf_counter()
                assess(grey)
                took.append(time.perf_counter() - start)
            table[f"{side} px {grey.dtype.name}"] = round(1000 * float(np.median(took)), 2)
    print(f"\nMilliseconds per image: {table}")
    return table


def main() -> None:
    """Measure, print tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDFILIP_DATA"))
    parser.add_argument("--not-chest", type=Path, nargs="*", default=[])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    assert given.data, "name the real data with --data or MEDFILIP_DATA"
    images = load(Path(given.data))
    named = groups(images)
    judged = {image.name: assess(image.pixels) for image in images}
    result: dict[str, Any] = {"as_they_are": as_they_are(named, judged)}
    if given.list:
        for image in images:
            a = judged[image.name]
            if a.view not in (image.view, "unknown") or a.inverted or a.rotation or a.not_chest_reason:
                print(f"  {image.part} {image.name} {image.view}: {a}")
    result["changed"] = changed(named)
    result["framed"] = framed(named)
    result["not_chests"] = not_chests(Path(given.data), given.not_chest, names=given.list)
    result["small"] = small(named)
    result["milliseconds"] = speed(next(i.pixels for i in images if i.source == "nih14"))
    write_result(given.out, result)


if __name__ == "__main__":
    main()
