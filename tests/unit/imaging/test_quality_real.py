"""What the view check makes of real radiographs; the files are not part of the project.

The bounds have slack over what ``tests/benchmarks/view_quality.py`` measures.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medfilip.imaging.quality import assess

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("MEDFILIP_DATA" not in os.environ, reason="MEDFILIP_DATA does not name a folder of real data"),
]


@pytest.fixture(scope="module")
def images() -> dict[str, list[np.ndarray]]:
    """Frontal and lateral images, every fifth frontal."""
    folder = Path(os.environ["MEDFILIP_DATA"]) / "cxr_images" / "open"
    found: dict[str, list[np.ndarray]] = {"frontal": [], "lateral": []}
    rows = sorted(pq.read_table(folder / "metadata.parquet").to_pylist(), key=lambda row: row["image_id"])
    for number, row in enumerate(rows):
        view = "lateral" if row["view"] == "L" else "frontal"
        if view == "lateral" or number % 5 == 0:
            with Image.open(folder / row["image_path"]) as image:
                found[view].append(np.asarray(image.convert("L")))
    return found


def test_frontal_radiographs_raise_no_false_alarm(images) -> None:
    told = [assess(pixels) for pixels in images["frontal"]]
    assert np.mean([a.view == "frontal" for a in told]) >= 0.9
    assert np.mean([a.view == "lateral" for a in told]) <= 0.015
    assert np.mean([a.inverted for a in told]) <= 0.005
    assert np.mean([a.rotation != 0 for a in told]) <= 0.005
    assert np.mean([a.not_chest_reason is not None for a in told]) <= 0.01


def test_lateral_radiographs_are_told(images) -> None:
    told = [assess(pixels) for pixels in images["lateral"]]
    assert np.mean([a.view == "lateral" for a in told]) >= 0.75
    assert sum(a.view == "frontal" for a in told) <= 2
    assert sum(a.not_chest_reason is not None for a in told) <= 1


@pytest.mark.parametrize(
    ("quarters", "negative", "recall"),
    [(0, True, 0.95), (1, False, 0.92), (3, False, 0.92), (2, False, 0.9), (1, True, 0.92)],
)
def test_changed_radiographs_are_told(images, quarters: int, negative: bool, recall: float) -> None:
    told = []
    for pixels in images["frontal"][::3]:
        changed = np.ascontiguousarray(np.rot90(255 - pixels if negative else pixels, quarters))
        found = assess(changed)
        told.append((found.rotation, found.inverted) == (90 * quarters, negative))
    assert np.mean(told) >= recall


@pytest.mark.parametrize("level", [0, 255])
def test_frames_around_radiographs_are_found(images, level: int) -> None:
    for pixels in images["frontal"][::20]:
        own, (height, width) = assess(pixels).content_box, pixels.shape
        framed = np.pad(pixels, ((height // 5, height // 9), (width // 8, width // 4)), constant_values=level)
        found = assess(framed)
        expected = np.add(own, (height // 5, width // 8, height // 5, width // 8))
        assert np.abs(np.array(found.content_box) - expected).max() <= max(2, 0.05 * max(pixels.shape))
        assert found.collimated
