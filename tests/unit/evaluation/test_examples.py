"""Example pictures: what they show, and which are shown."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from medfilip.evaluation.examples import Example, choose, draw_example
from medfilip.evaluation.grounding import point
from medfilip.model.diagnoser import Diagnoser


def opened(example):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(example.picture))).convert("RGB")).astype(int)


def test_the_image_stands_beside_itself_under_its_map():
    pixels = np.linspace(-1, 1, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    heat, mask = np.full((32, 32), -1.0, np.float32), np.zeros((32, 32), bool)
    heat[4:8, 4:8], mask[20:28, 20:28] = 3.0, True
    picture = opened(draw_example(pixels, heat, mask, label="mass", order=1, hit=False))
    height, width = picture.shape[:2]
    assert width == 2 * height
    left, right = picture[:, :height], picture[:, height:]
    assert (left.max(axis=2) == left.min(axis=2)).all() and left.min() == 0 and left.max() == 255
    scale = height // 32
    changed = (np.abs(left - right).max(axis=2) > 2).reshape(32, scale, 32, scale).any(axis=(1, 3))
    expected = np.zeros((32, 32), bool)
    expected[4:8, 4:8] = True  # only where the map speaks for the label
    expected[20:28, 20:28], expected[21:27, 21:27] = True, False  # and the outline of the box
    assert (changed == expected).all()


def test_labels_take_turns_and_how_well_it_looks_does_not_count():
    items = [Example(label, order, hit=False, picture="") for label in ("b", "a") for order in (5, 3, 9)]
    items.append(Example("c", 1, hit=True, picture=""))
    chosen = choose(items, 5)
    assert [(item.label, item.order) for item in chosen] == [("a", 3), ("b", 3), ("c", 1), ("a", 5), ("b", 5)]
    assert choose(items, 0) == () and choose([], 3) == ()
    assert choose(choose(items[:3], 2) + choose(items[3:], 2), 3) == choose(items, 3)  # part by part or all at once


def test_pictures_are_taken_only_where_asked_for(tiny_checkpoint):
    diagnoser = Diagnoser.load(tiny_checkpoint)
    given = {"patient": "p", "split": "test", "method": "gradient", "seed": 7}
    pixels, boxes = np.random.default_rng(0).normal(size=(1, 32, 32)).astype(np.float32), {"mass": [(0, 0, 9, 9)]}
    taken: list[Example] = []
    found = point(diagnoser, pixels, boxes, (32, 32), **given, examples=taken)
    assert [(item.label, item.order, item.hit) for item in taken] == [("mass", 7, found[0].hit)]
    assert point(diagnoser, pixels, boxes, (32, 32), **given) == found and len(taken) == 1
