"""Images that are no chest radiographs, for measuring the view check: real files where there are any, and rendered."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[Any]


def dicom_files(data: Path, *, chest: bool) -> Iterator[tuple[str, Pixels]]:
    """Pixels of the DICOM files whose first frame can be decoded, without asking the header what they show."""
    import pydicom

    from medfilip.imaging.windowing import to_monochrome2

    with (data / "dicom" / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        if (row["is_chest"] == "True") is not chest:
            continue
        try:
            dataset = pydicom.dcmread(data / "dicom" / row["file"], force=True)
            values = dataset.pixel_array
            if int(dataset.get("NumberOfFrames") or 1) > 1:
                values = values[0]
            if values.ndim == 3:
                grey = Image.fromarray(values.astype(np.uint8)).convert("L")
                yield row["file"], np.asarray(grey)
            else:
                yield row["file"], to_monochrome2(values, dataset)
        except Exception as error:  # files that must not decode are in the set
            print(f"  not decoded: {row['file']} ({type(error).__name__})")


def folder_images(folder: Path) -> Iterator[tuple[str, Pixels]]:
    """Every image file under a folder, as grey."""
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".gif", ".tif"):
            try:
                with Image.open(file) as image:
                    grey = np.asarray(image.convert("RGB").convert("L"))
            except OSError:
                continue
            if min(grey.shape) >= 64:
                yield f"{folder.name}/{file.name}", grey


def sample_photos() -> Iterator[tuple[str, Pixels]]:
    """Photographs and pictures inside scikit-learn and matplotlib."""
    import matplotlib as mpl
    import sklearn.datasets

    yield from folder_images(Path(sklearn.datasets.__file__).parent / "images")
    yield from folder_images(Path(mpl.get_data_path()) / "sample_data")


def rendered(count: int = 12) -> Iterator[tuple[str, Pixels]]:
    """Pages, screens, charts, noise, gradients, boards and constants, each in ``count`` random variants."""
    rng = np.random.default_rng(20)
    for k in range(count):
        height, width = (int(side) for side in rng.integers(64, 900, 2))
        yield f"page {k}", _page(rng)
        yield f"screen {k}", _screen(rng)
        yield f"chart {k}", _chart(rng)
        yield f"white noise {k}", rng.integers(0, 256, (height, width), dtype=np.uint8)
        grain = rng.normal(128, 40, (8 + k, 8 + k)).clip(0, 255).astype(np.uint8)
        yield f"cloud {k}", np.asarray(Image.fromarray(grain).resize((512, 512), Image.Resampling.BICUBIC))
        u, v = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
        yield f"gradient {k}", (255 * (u * (k % 3) + v * (k % 2) + 0.2).clip(0, 3) / 3.2).astype(np.uint8)
        side = int(rng.integers(3, 80))
        rows, columns = np.arange(512)[:, None] // side, np.arange(512)[None, :] // side
        yield f"board {k}", (((rows + columns) % 2) * 200 + 20).astype(np.uint8)
        yield f"constant {k}", np.full((height, width), rng.integers(0, 256), np.uint8)
        rings = np.sin(np.hypot(u - 0.5, v - 0.5) * rng.uniform(5, 60))
        yield f"rings {k}", (127 + 120 * rings).astype(np.uint8)


def _page(rng: np.random.Generator) -> Pixels:
    width, height = int(rng.integers(300, 1200)), int(rng.integers(300, 1400))
    ink, paper = ((20, 250), (235, 10))[int(rng.random() < 0.3)]
    image = Image.new("L", (width, height), paper)
    draw = ImageDraw.Draw(image)
    for y in range(20, height - 20, int(rng.integers(12, 30))):
        words = "".join(rng.choice(list("abcdefgh ijklmno pqrstuv "), int(rng.integers(5, width // 8))))
        draw.text((20, y), words, fill=ink)
    return np.asarray(image)


def _screen(rng: np.random.Generator) -> Pixels:
    width, height = int(rng.integers(400, 1200)), int(rng.integers(300, 900))
    image = Image.new("L", (width, height), int(rng.integers(0, 256)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 16))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        corner = (x + int(rng.integers(20, width // 2)), y + int(rng.integers(10, height // 2)))
        draw.rectangle(((x, y), corner), fill=int(rng.integers(0, 256)), outline=int(rng.integers(0, 256)))
        draw.text((x + 4, y + 2), "Patient list  Open  Save  Window", fill=int(rng.integers(0, 256)))
    return np.asarray(image)


def _chart(rng: np.random.Generator) -> Pixels:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), dpi=100)
    axes = figure.subplots(1, int(rng.integers(1, 3)), squeeze=False)[0]
    for ax in axes:
        ax.bar(range(6), rng.random(6))
        ax.plot(rng.random(20).cumsum())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as image:
        return np.asarray(image.convert("L"))
