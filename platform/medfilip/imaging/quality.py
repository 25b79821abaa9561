"""Whether pixels look like an upright chest radiograph that is no negative, and what is wrong when they do not.

Everything is judged from the pixels alone, on a thumbnail of 32 x 32 ranks and 65 thousand picked pixels, in a few
milliseconds whatever the size. Doubt is resolved towards the harmless answer: the view is ``unknown``, the image is
upright, no negative and a chest. What a header says is for the caller to weigh against it.

The thresholds were set on the patients of a development split of public radiographs. On the others (920 frontal
images, 12 lateral; ``tests/benchmarks/view_quality.py``) the errors stand with the constants below. That split was
looked at once before the last round of drawings, so it flatters a little.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.radiograph import Pixels, RadiographView
from medfilip.imaging.thumbnail import Box, content_box, pick, ranks
from medfilip.imaging.view import Likelihoods, likelihoods

INVERTED_FROM = 0.7
"""Probability of a negative, given a chest. None of 920 was called a negative; of their negatives 99 % were told."""
TURNED_FROM = {"frontal": 0.7, "lateral": 0.9}
"""Probability of one quarter turn, given a chest, by the likelier view. None of 920 upright frontals was called turned;
of those turned by 90 or 270 degrees 97 % were told, of laterals a quarter, the others being left as they lie."""
UPSIDE_DOWN_FROM = {"frontal": 0.8, "lateral": 0.95}
"""The same for 180 degrees. Half a turn shows less than a quarter: from the front both lungs still lie beside the
mediastinum, and from the side shoulders and abdomen, both bright, only change places. 96 % of frontals were told, and
2 of 12 laterals."""
LATERAL_FROM = 0.75
FRONTAL_FROM = 0.6
"""Probabilities of the views, given a chest; between them the view is unknown. Of 920 frontals 97 % were told and 0.4 %
called lateral, most of them bedside images; of 12 laterals 11 were told and none was called frontal."""
NO_CHEST_FROM = 0.85
"""Probability of no chest. 2 of 920 frontals were refused, both low in contrast."""
MIN_CHEST = 0.25
"""Below this probability of a chest nothing is said about its view, turn and polarity."""
MIN_SIDE = 24
"""Sides of the exposed field in pixels from which anything is judged."""
MAX_ASPECT = 2.5
"""Longer to shorter side of the exposed field; a long spine or a jaw exceeds it, a chest does not."""
COLLIMATED_FROM = 0.03
"""Share of the height or width that a frame takes on one side."""
TWO_LEVEL_FROM = 0.9
"""Share of pixels near the two commonest levels."""
NOISE_BELOW = 0.4
"""Correlation of neighbouring cells of the thumbnail."""
FLAT_BELOW = 0.03
"""Range of greys in shares of the brightest."""
FLAT_LEVELS = {np.dtype(np.uint8): 5, np.dtype(np.uint16): 40}
"""Range of greys in levels."""
CLIPPED_FROM = 0.5
"""Share of the exposed field at its darkest or brightest value."""


class QualityFlag(StrEnum):
    """What is to be said of an image; the names are stable."""

    TOO_SMALL = "too_small"
    NOT_CHEST = "not_chest"
    INVERTED = "inverted"
    ROTATED = "rotated"
    COLLIMATED = "collimated"
    UNDEREXPOSED = "underexposed"
    OVEREXPOSED = "overexposed"


EXPLANATIONS: dict[QualityFlag, str] = {
    QualityFlag.TOO_SMALL: f"The exposed field has a side of fewer than {MIN_SIDE} pixels.",
    QualityFlag.NOT_CHEST: "The pixels do not look like a chest radiograph.",
    QualityFlag.INVERTED: "The image is a negative: bone is dark and air is bright.",
    QualityFlag.ROTATED: "The image does not stand upright.",
    QualityFlag.COLLIMATED: "A constant border surrounds the exposed field.",
    QualityFlag.UNDEREXPOSED: "Most of the exposed field has its brightest value: nothing is seen in it.",
    QualityFlag.OVEREXPOSED: "Most of the exposed field has its darkest value: nothing is seen in it.",
}
"""One sentence per flag, for reject tables, the API and the page."""

NOT_CHEST_EXPLANATIONS: dict[str, str] = {
    "blank": "The image is one constant level.",
    "too_small": EXPLANATIONS[QualityFlag.TOO_SMALL],
    "wrong_aspect": f"The exposed field is more than {MAX_ASPECT} times as long as wide.",
    "flat": "The greys of the image span almost nothing.",
    "two_level": "Nearly all pixels have one of two levels, as a page of text or a bitmap has.",
    "noise": "Neighbouring areas have nothing in common.",
    "no_lung_fields": "No lung fields are found in any of the ways the image could be turned.",
}
"""One sentence per ``Assessment.not_chest_reason``."""


@dataclass(frozen=True)
class Assessment:
    """What the pixels of one image look like.

    Attributes
    ----------
    view, view_score
        From the front or the side, and the probability of that view given a chest; of the likelier one if unknown.
    inverted, inverted_score
        Whether the image is a negative, and the probability of it given a chest.
    rotation, rotation_score
        Degrees (0, 90, 180, 270) clockwise by which the image must be turned to stand upright, and their probability
        given a chest.
    content_box
        Exposed field without constant frames: ``(row0, col0, row1, col1)``, half open, in pixels; the whole image if
        it is blank.
    collimated
        Whether a frame takes a notable part of one side.
    chest_score
        Probability of a chest in any view, turn or polarity; 0 where a rule has ruled it out.
    not_chest_reason
        A key of `NOT_CHEST_EXPLANATIONS`, or ``None`` for a chest or in doubt.
    clipped_low, clipped_high
        Shares of the exposed field at its darkest and its brightest value.
    """

    view: RadiographView
    view_score: float
    inverted: bool
    inverted_score: float
    rotation: int
    rotation_score: float
    content_box: Box
    collimated: bool
    chest_score: float
    not_chest_reason: str | None
    clipped_low: float
    clipped_high: float


def assess(pixels: Pixels) -> Assessment:
    """Judge view, polarity, turn, frame and whether it is a chest at all.

    Parameters
    ----------
    pixels
        ``uint8`` or ``uint16`` ``[H, W]``, larger is brighter.

    Raises
    ------
    MedfilipError
        ``IMAGE_UNSUPPORTED`` for anything else.
    """
    _check(pixels)
    box = content_box(pixels)
    if box is None:
        return _ruled_out("blank", (0, 0, *pixels.shape), collimated=False, clipped=(0.0, 0.0))
    picked = pick(pixels, box)
    collimated = _collimated(box, pixels.shape)
    clipped = float((picked == picked.min()).mean()), float((picked == picked.max()).mean())
    thumbnail = ranks(picked)
    reason = _rule(pixels, box, picked) or ("noise" if _neighbours(thumbnail) < NOISE_BELOW else None)
    if reason is not None:
        return _ruled_out(reason, box, collimated=collimated, clipped=clipped)
    return _judge(likelihoods(thumbnail), box, collimated=collimated, clipped=clipped)


def reasons(assessment: Assessment) -> tuple[QualityFlag, ...]:
    """Return what is to be said of an image, in the order of `QualityFlag`; empty for a good radiograph."""
    chest = assessment.not_chest_reason is None
    holds = {
        QualityFlag.TOO_SMALL: assessment.not_chest_reason == "too_small",
        QualityFlag.NOT_CHEST: not chest and assessment.not_chest_reason != "too_small",
        QualityFlag.INVERTED: assessment.inverted,
        QualityFlag.ROTATED: assessment.rotation != 0,
        QualityFlag.COLLIMATED: assessment.collimated,
        QualityFlag.UNDEREXPOSED: assessment.clipped_high >= CLIPPED_FROM,
        QualityFlag.OVEREXPOSED: assessment.clipped_low >= CLIPPED_FROM,
    }
    return tuple(flag for flag in QualityFlag if holds[flag])


def correct(pixels: Pixels, assessment: Assessment) -> Pixels:
    """Undo what `assess` found: negate a negative, turn what is turned. Nothing is cropped.

    Deep data that do not fill ``uint16`` are negated within the bits they use, as a viewer would have negated them.
    """
    if assessment.inverted:
        bits = 8 if pixels.dtype == np.uint8 else max(8, int(pixels.max()).bit_length())
        pixels = pixels.dtype.type(2**bits - 1) - pixels
    if assessment.rotation:
        pixels = np.ascontiguousarray(np.rot90(pixels, -(assessment.rotation // 90)))
    return pixels


def _check(pixels: NDArray[Any]) -> None:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16) or pixels.size == 0:
        raise MedfilipError(
            ErrorCode.IMAGE_UNSUPPORTED,
            f"Quality is judged of uint8 or uint16 [H, W], not of {pixels.dtype} {list(pixels.shape)}.",
            fix="Pass the pixels of a Radiograph.",
        )


def _collimated(box: Box, shape: tuple[int, ...]) -> bool:
    top, left, bottom, right = box
    lost = (top / shape[0], 1 - bottom / shape[0], left / shape[1], 1 - right / shape[1])
    return max(lost) >= COLLIMATED_FROM


def _rule(pixels: Pixels, box: Box, picked: NDArray[np.int64]) -> str | None:
    """Reasons that need no network, from the cheapest on."""
    height, width = box[2] - box[0], box[3] - box[1]
    if min(height, width) < MIN_SIDE:
        return "too_small"
    if max(height, width) > MAX_ASPECT * min(height, width):
        return "wrong_aspect"
    low, high, brightest = (float(value) for value in np.percentile(picked, (1, 99, 100)))
    if high - low < max(FLAT_LEVELS[pixels.dtype], FLAT_BELOW * brightest):
        return "flat"
    return "two_level" if _two_levels(picked) >= TWO_LEVEL_FROM else None


def _two_levels(picked: NDArray[np.int64]) -> float:
    """Share of pixels near the two commonest levels that lie apart, in bins of a 32nd of the range."""
    low, high = int(picked.min()), int(picked.max())
    counts = np.bincount(((picked - low) * 32 // (high - low + 1)).ravel(), minlength=32)
    around = np.convolve(counts, np.ones(3, dtype=np.int64), mode="same")
    first = int(np.argmax(around))
    apart = np.abs(np.arange(32) - first) >= 8
    return float(around[first] + around[apart].max()) / picked.size


def _neighbours(thumbnail: NDArray[np.float32]) -> float:
    """Mean correlation of horizontal and vertical neighbours of ranks ``[32, 32]``."""
    spread = float((thumbnail * thumbnail).mean())
    if spread == 0.0:
        return 0.0
    across, down = thumbnail[:, 1:] * thumbnail[:, :-1], thumbnail[1:] * thumbnail[:-1]
    return float(across.mean() + down.mean()) / (2 * spread)


def _ruled_out(reason: str, box: Box, *, collimated: bool, clipped: tuple[float, float]) -> Assessment:
    return Assessment("unknown", 0.0, False, 0.0, 0, 0.0, box, collimated, 0.0, reason, *clipped)


def _judge(found: Likelihoods, box: Box, *, collimated: bool, clipped: tuple[float, float]) -> Assessment:
    chest = 1.0 - found.none
    given = found.chest / max(chest, 1e-12)
    polarity, turns, views = given.sum(axis=(1, 2)), given.sum(axis=(0, 2)), given.sum(axis=(0, 1))
    told = chest >= MIN_CHEST
    inverted = told and bool(polarity[1] >= INVERTED_FROM)
    turn = int(np.argmax(turns))
    needed = (UPSIDE_DOWN_FROM if turn == 2 else TURNED_FROM)["lateral" if views[1] > views[0] else "frontal"]
    if turn and not (told and turns[turn] >= needed):
        turn = 0
    reason = "no_lung_fields" if found.none >= NO_CHEST_FROM else None
    view: RadiographView = "unknown"
    if told:
        view = "lateral" if views[1] >= LATERAL_FROM else "frontal" if views[0] >= FRONTAL_FROM else "unknown"
    score = {"frontal": views[0], "lateral": views[1], "unknown": views.max()}[view]
    return Assessment(
        view=view,
        view_score=float(score),
        inverted=inverted,
        inverted_score=float(polarity[1]),
        rotation=(360 - 90 * turn) % 360,
        rotation_score=float(turns[turn]),
        content_box=box,
        collimated=collimated,
        chest_score=chest,
        not_chest_reason=reason,
        clipped_low=clipped[0],
        clipped_high=clipped[1],
    )
