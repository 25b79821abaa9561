"""Whether heat maps point at what they should: pointing game and overlap with boxes, beside three controls.

``blank``
    The maps of an image of noise: what the label alone, or the anatomy that all images share, would point at.
``shuffled``
    The map of another label of the same image: whether a map is about its label or about whatever stands out.
``chance``
    The share of the image that the boxes cover: a random point.

The pointing game (Zhang et al. 2018) asks whether the largest value of a map lies in a box of the label. The overlap is
the intersection over union of the boxes with the places above a share of the map's largest value; the share is chosen
on the validation split.

Legend of tensor names: F findings (an image and a label with boxes), S side of the input, T thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.evaluation.examples import Example, draw_example
from medfilip.evaluation.metrics import Floats, Interval, interval_of, resample_weights, weighted_means
from medfilip.imaging.preprocess import letterbox
from medfilip.model.diagnoser import Diagnoser, FloatArray
from medfilip.model.heat_map import MapMethod

Box = tuple[int, int, int, int]
SHARES = tuple(round(0.1 * step, 1) for step in range(1, 10))


@dataclass(frozen=True)
class Pointed:
    """One label of one image: how the map of the label, of noise and of another label fit its boxes.

    Attributes
    ----------
    hit, blank_hit, shuffled_hit
        Whether the largest value lies in a box; ``shuffled_hit`` is ``None`` where there is no other label.
    overlap_T, blank_overlap_T, shuffled_overlap_T
        Intersection over union at each of `SHARES`.
    covered
        Share of the image in boxes.
    """

    label: str
    patient: str
    split: str
    hit: bool
    blank_hit: bool
    shuffled_hit: bool | None
    overlap_T: tuple[float, ...]
    blank_overlap_T: tuple[float, ...]
    shuffled_overlap_T: tuple[float, ...] | None
    covered: float


class GroundingRow(BaseModel):
    """Numbers of one label, or of all of them where ``label`` is empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    findings: int
    pointing: Interval
    pointing_blank: Interval
    pointing_shuffled: Interval | None
    pointing_chance: float
    iou: Interval
    iou_blank: Interval
    iou_shuffled: Interval | None


class GroundingResult(BaseModel):
    """Numbers by label, all labels first.

    Attributes
    ----------
    share
        Of the largest value, above which a place counts for the overlap; chosen on ``share_from``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: MapMethod
    share: float
    share_from: str
    rows: tuple[GroundingRow, ...]


def point(
    diagnoser: Diagnoser,
    pixels_1SS: FloatArray,
    boxes: Mapping[str, Sequence[Box]],
    shape: tuple[int, int],
    *,
    patient: str,
    split: str,
    method: MapMethod,
    seed: int,
    examples: list[Example] | None = None,
) -> list[Pointed]:
    """Compare the maps of one image with its boxes.

    Parameters
    ----------
    pixels_1SS
        Model input.
    boxes
        Label → boxes ``(row0, col0, row1, col1)``, half open, in pixels of the image as it was drawn or annotated.
    shape
        Height and width of that image.
    seed
        Of the noise.
    examples
        Takes a picture of each label, if given.
    """
    size, labels = diagnoser.image_size, list(boxes)
    noise = np.random.default_rng(seed).normal(size=pixels_1SS.shape).astype(np.float32)
    bank = diagnoser.encode_labels(labels)
    map_2LSS = diagnoser.heat_maps(np.stack([pixels_1SS, noise]), bank, method)
    found = []
    for at, label in enumerate(labels):
        mask_SS = box_mask(boxes[label], shape, size)
        if examples is not None:
            hit = _hit(map_2LSS[0, at], mask_SS)
            examples.append(draw_example(pixels_1SS, map_2LSS[0, at], mask_SS, label=label, order=seed, hit=hit))
        # Another label whose boxes do not say the same: its map must not fit these.
        other = next((i for i in range(len(labels)) if i != at), None)
        found.append(
            Pointed(
                label, patient, split,
                _hit(map_2LSS[0, at], mask_SS), _hit(map_2LSS[1, at], mask_SS),
                None if other is None else _hit(map_2LSS[0, other], mask_SS),
                _overlaps(map_2LSS[0, at], mask_SS), _overlaps(map_2LSS[1, at], mask_SS),
                None if other is None else _overlaps(map_2LSS[0, other], mask_SS),
                float(mask_SS.mean()),
            )
        )  # fmt: skip
    return found


def box_mask(boxes: Sequence[Box], shape: tuple[int, int], size: int) -> NDArray[np.bool_]:
    """Draw boxes of an image into the square that the model sees of it; bool [S, S], never empty for a box."""
    top, left, height, width = letterbox(shape, size)
    mask_SS = np.zeros((size, size), bool)
    for row0, col0, row1, col1 in boxes:
        first_row, last_row = top + row0 * height / shape[0], top + row1 * height / shape[0]
        first_column, last_column = left + col0 * width / shape[1], left + col1 * width / shape[1]
        rows = slice(int(first_row), max(int(np.ceil(last_row)), int(first_row) + 1))
        mask_SS[rows, int(first_column) : max(int(np.ceil(last_column)), int(first_column) + 1)] = True
    return mask_SS


def evaluate_grounding(
    found: Sequence[Pointed], method: MapMethod, *, min_findings: int = 5, resamples: int = 1000, seed: int = 0
) -> GroundingResult | None:
    """Sum up; ``None`` without findings in the test split. A label needs ``min_findings`` for a row of its own."""
    test = [item for item in found if item.split == "test"]
    validation = [item for item in found if item.split == "validation"]
    if not test:
        return None
    mean_T = np.mean([item.overlap_T for item in validation], axis=0) if validation else np.zeros(len(SHARES))
    at = int(mean_T.argmax()) if validation else len(SHARES) // 2
    labels = sorted({item.label for item in test})
    groups = [("", test), *((label, [item for item in test if item.label == label]) for label in labels)]
    return GroundingResult(
        method=method,
        share=SHARES[at],
        share_from="validation" if validation else "default",
        rows=tuple(
            _row(label, items, at, resamples, seed)
            for label, items in groups
            if not label or len(items) >= min_findings
        ),
    )


def _row(label: str, items: Sequence[Pointed], at: int, resamples: int, seed: int) -> GroundingRow:
    weights_RF = resample_weights([item.patient for item in items], resamples, seed)

    def mean(values: Sequence[float | None]) -> Interval | None:
        value_F: Floats = np.array([np.nan if value is None else float(value) for value in values])
        return interval_of(weighted_means(weights_RF, value_F))

    def known(values: Sequence[float | None]) -> Interval:
        found = mean(values)
        assert found is not None
        return found

    return GroundingRow(
        label=label,
        findings=len(items),
        pointing=known([item.hit for item in items]),
        pointing_blank=known([item.blank_hit for item in items]),
        pointing_shuffled=mean([item.shuffled_hit for item in items]),
        pointing_chance=float(np.mean([item.covered for item in items])),
        iou=known([item.overlap_T[at] for item in items]),
        iou_blank=known([item.blank_overlap_T[at] for item in items]),
        iou_shuffled=mean([None if item.shuffled_overlap_T is None else item.shuffled_overlap_T[at] for item in items]),
    )


def _hit(map_SS: FloatArray, mask_SS: NDArray[np.bool_]) -> bool:
    return bool(mask_SS.flat[int(map_SS.argmax())])


def _overlaps(map_SS: FloatArray, mask_SS: NDArray[np.bool_]) -> tuple[float, ...]:
    highest = max(float(map_SS.max()), 1e-12)
    found = []
    for share in SHARES:
        above_SS = map_SS >= share * highest
        found.append(float((above_SS & mask_SS).sum() / max(1, (above_SS | mask_SS).sum())))
    return tuple(found)
