"""Draw ten findings, a normal chest in every style and a lateral one on a sheet, to look at with a critical eye.

Usage: ``python -m tests.benchmarks.phantom_contact_sheet [--size 512] [--seed 11] OUT.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from medfilip.findings.finding import Laterality
from medfilip.phantom.draw import ALL_STYLES, PhantomImage, draw
from medfilip.phantom.lesions import Lesion

CELL, LABEL, COLUMNS = 310, 16, 5
L, R = Laterality.LEFT, Laterality.RIGHT
FINDINGS: tuple[tuple[str, Lesion], ...] = (
    ("digital", Lesion(category="pleural_effusion", laterality=L, severity="moderate")),
    ("digital", Lesion(category="consolidation", laterality=R, severity="severe", site="lower_lobe")),
    ("enhanced", Lesion(category="pneumothorax", laterality=R, severity="moderate")),
    ("digital", Lesion(category="cardiomegaly", severity="moderate")),
    ("digital", Lesion(category="edema", severity="severe")),
    ("enhanced", Lesion(category="interstitial_opacity", severity="severe")),
    ("film", Lesion(category="mass", laterality=L, site="upper_lobe", size_mm=55.0)),
    ("digital", Lesion(category="atelectasis", laterality=R, severity="moderate", site="upper_lobe")),
    ("film", Lesion(category="hiatal_hernia", severity="severe")),
    ("portable", Lesion(category="pacemaker", laterality=L)),
)
"""Style and lesion of each picture of the upper rows."""


def picture(image: PhantomImage) -> Image.Image:
    """Turn 12 bits into 8 and resize to a cell."""
    return Image.fromarray((image.pixels >> 4).astype(np.uint8)).resize((CELL, CELL), Image.Resampling.LANCZOS)


def labelled(seed: int, size: int) -> list[tuple[str, PhantomImage]]:
    """Draw all pictures of the sheet."""
    found: list[tuple[str, PhantomImage]] = []
    for number, (style, lesion) in enumerate(FINDINGS):
        sex, age = ("F", "M")[number % 2], 38 + 4 * number
        image = draw((lesion,), seed, number, size, styles=(style,), sex=sex, age=age)
        grade = lesion.severity or (f"{lesion.size_mm:.0f} mm" if lesion.size_mm else "")
        found.append((f"{lesion.key} {grade} ({style})", image))
    for number, style in enumerate(ALL_STYLES):
        image = draw((), seed, 20 + number, size, styles=(style,), sex=("M", "F")[number % 2], age=30 + 15 * number)
        found.append((f"normal ({style})", image))
    found.append(("normal, lateral (digital)", draw((), seed, 30, size, styles=("digital",), lateral=True)))
    return found


def main() -> None:
    """Draw the sheet and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=11)
    given = parser.parse_args()
    pictures = labelled(given.seed, given.size)
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("L", (COLUMNS * CELL, rows * (CELL + LABEL)))
    pen = ImageDraw.Draw(sheet)
    for number, (label, image) in enumerate(pictures):
        x, y = number % COLUMNS * CELL, number // COLUMNS * (CELL + LABEL)
        sheet.paste(picture(image), (x, y + LABEL))
        pen.text((x + 4, y + 2), label, fill=255)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(given.out)


if __name__ == "__main__":
    main()
