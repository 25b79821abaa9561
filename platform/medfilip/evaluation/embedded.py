"""Embedded images with what is known of them, and how much is measured: what all parts of an evaluation share.

Legend of tensor names: N images, D joint dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from medfilip.model.diagnoser import Diagnoser, FloatArray

Part = Literal["prompts", "fine_grained", "retrieval", "subgroups", "heat_maps"]
PARTS: tuple[Part, ...] = get_args(Part)
Unit = Literal["image", "study"]
"""What counts once: an image, or a study, whose images are pooled as a model that is trained on studies pools them."""
IMAGE_COLUMNS = ("image_id", "study_id", "patient_id", "view", "view_position", "sex", "age_years", "source", "split")
"""What is kept of each image beside its embedding."""


_VIEW_ORDER = ("frontal", "unknown", "lateral")


@dataclass(frozen=True)
class EmbeddedImages:
    """Images or studies as a model sees them, with `IMAGE_COLUMNS`, in a fixed order.

    Attributes
    ----------
    image_ND
        Of unit length.
    facts
        A row each; that of a study is the row of its first frontal image, or of its first one.
    unit
        Which of both they are.
    texture_NF
        What images are made of (`Diagnoser.texture`); of a study, that of its first image.
    """

    image_ND: FloatArray
    facts: pa.Table
    unit: Unit = "image"
    texture_NF: FloatArray | None = None

    @classmethod
    def of(cls, feature_ND: FloatArray, facts: pa.Table, diagnoser: Diagnoser, unit: Unit) -> EmbeddedImages:
        """Make units of the features of images (`Diagnoser.image_features`); studies come as their first images do."""
        if unit == "image":
            return cls(diagnoser.join(feature_ND), facts, unit, diagnoser.texture(feature_ND))
        number = {study: at for at, study in enumerate(dict.fromkeys(facts["study_id"].to_pylist()))}
        study_N = np.array([number[study] for study in facts["study_id"].to_pylist()], np.int64)
        rank_N = np.array([_VIEW_ORDER.index(view) for view in facts["view"].to_pylist()], np.int64)
        order_N = np.lexsort((np.arange(len(study_N)), rank_N, study_N))
        first_S = order_N[np.searchsorted(study_N[order_N], np.arange(len(number)))]
        joined_SD = diagnoser.join(feature_ND[order_N], study_N[order_N])
        return cls(joined_SD, facts.take(pa.array(first_S)), unit, diagnoser.texture(feature_ND[first_S]))

    def of_split(self, split: str) -> EmbeddedImages:
        """Select a split's images."""
        rows = np.flatnonzero(np.array(self.column("split"), dtype=object) == split)
        texture_NF = None if self.texture_NF is None else self.texture_NF[rows]
        return replace(self, image_ND=self.image_ND[rows], facts=self.facts.take(pa.array(rows)), texture_NF=texture_NF)

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
