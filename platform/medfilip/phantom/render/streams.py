"""Random streams of lesions."""

from __future__ import annotations

import numpy as np

from medfilip.phantom.lesions import CATEGORIES, SIDES, Lesion


def lesion_stream(seed: int, index: int, lesion: Lesion, view: int) -> np.random.Generator:
    """Random stream of one lesion on one view (0 frontal, 1 lateral): no other lesion draws from it."""
    side = SIDES.index(lesion.laterality) if lesion.laterality is not None else len(SIDES)
    return np.random.default_rng([seed, index, 2, CATEGORIES.index(lesion.category), side, view])
