"""Embedded images with what is known of them, and how much is measured: what all parts of an evaluation share.

Legend of tensor names: N images, D joint dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from medfilip.model.diagnoser import FloatArray

Part = Literal["prompts", "fine_grained", "retrieval", "subgroups", "heat_maps"]
PARTS: tuple[Part, ...] = get_args(Part)
IMAGE_COLUMNS = ("image_id", "study_id", "patient_id", "view", "view_position", "sex", "age_years", "source", "split")
"""What is kept of each image beside its embedding."""


@dataclass(frozen=True)
class EmbeddedImages:
    """Images as a model sees them, with `IMAGE_COLUMNS`, in a fixed order."""

    image_ND: FloatArray
    facts: pa.Table

    def of_split(self, split: str) -> EmbeddedImages:
        """Select a split's images."""
        rows = np.flatnonzero(np.array(self.column("split"), dtype=object) == split)
        return EmbeddedImages(self.image_ND[rows], self.facts.take(pa.array(rows)))

    def column(self, name: str) -> list[str]:
        """Return a column of the images."""
        values: list[str] = self.facts[name].to_pylist()
        return values

    def __len__(self) -> int:
        return len(self.image_ND)


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes
    ----------
    labels
        Categories to diagnose; empty: those with enough test images.
    min_images
        With and without a category, for it to be chosen.
    exclusive
        Whether labels exclude each other, so that the choice of one is measured too.
    parts
        What is measured beside zero-shot diagnosis.
    """

    labels: tuple[str, ...] = ()
    min_images: int = 3
    exclusive: bool = False
    parts: tuple[Part, ...] = PARTS
    resamples: int = 1000
    seed: int = 0
