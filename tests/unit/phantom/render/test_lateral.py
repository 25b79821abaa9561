import numpy as np
import pytest

from medfilip.findings.ontology import load_ontology
from medfilip.phantom.draw import draw
from medfilip.phantom.lesions import CATEGORIES, FRONTAL_ONLY, KINDS, Lesion
from medfilip.phantom.render.lateral_findings import PAINTERS
from tests.unit.phantom.render.test_frontal import lesion

SIZE = 160


def image(*lesions: Lesion, seed: int = 0):
    return draw(lesions, seed, 3, SIZE, styles=("digital",), lateral=True)


def test_the_ontology_says_which_categories_a_lateral_view_cannot_judge() -> None:
    views = {name: load_ontology().categories[name].views for name in CATEGORIES}
    assert {name for name, seen in views.items() if "lateral" not in seen} == {*FRONTAL_ONLY}


@pytest.mark.parametrize("category", [name for name in CATEGORIES if name not in FRONTAL_ONLY])
def test_what_a_lateral_view_can_judge_is_drawn_there(category: str) -> None:
    one = lesion(category)
    plain, shown = image(), image(one)
    assert shown.view == "LL" and set(shown.masks) == {one.key}
    difference = np.abs(shown.pixels.astype(int) - plain.pixels)
    assert difference[shown.masks[one.key]].max() > 80
    if category in PAINTERS and category != "atelectasis":
        row0, col0, row1, col1 = shown.boxes[one.key]
        difference[max(row0 - 3, 0) : row1 + 3, max(col0 - 3, 0) : col1 + 3] = 0
        assert difference.max() < 330


@pytest.mark.parametrize("category", ["pneumothorax", "rib_fracture"])
def test_what_it_cannot_judge_leaves_no_trace(category: str) -> None:
    shown = image(lesion(category))
    assert shown.masks == {} and np.array_equal(shown.pixels, image().pixels)


@pytest.mark.parametrize("category", [name for name in PAINTERS if KINDS[name].grades])
def test_severity_grows_the_lesion(category: str) -> None:
    plain = image().pixels.astype(int)
    sums = [
        int(np.abs(image(lesion(category, severity=grade)).pixels - plain).sum()) for grade in KINDS[category].grades
    ]
    assert sums == sorted(sums) and sums[-1] > 1.3 * sums[0]


def test_the_spine_darkens_downwards_and_lies_behind() -> None:
    """Front is left: the air behind the sternum is dark, the abdomen bright."""
    pixels = image().pixels.astype(float)
    assert pixels[int(0.9 * SIZE), SIZE // 2] > 1.5 * pixels[int(0.32 * SIZE), int(0.33 * SIZE)]
