"""What a phantom has: drawn first, so that the report and the image are two accounts of one truth."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from medfilip.findings.finding import Laterality

CATEGORIES = ("pleural_effusion", "consolidation", "nodule", "cardiomegaly", "pneumothorax")
"""Categories of the ontology that a phantom image can show."""

SIDES = (Laterality.LEFT, Laterality.RIGHT)

_SIDE_RATE = 0.2  # of each category on each side: about 36 % of the studies have it
_CARDIOMEGALY_RATE = 0.35
_SYMMETRIC = frozenset({"pleural_effusion", "consolidation"})
_ALIKE_RATE = 0.5  # of bilateral effusions and consolidations: the same on both sides, which reports put in one phrase
_NORMAL_SHARE, _KEPT_SHARE = 0.5, 0.4
_SEVERITY_RANK = {None: 0, "minimal": 1, "mild": 2, "moderate": 3, "severe": 4}


class Lesion(BaseModel):
    """One thing that is drawn; categories, sites and severities are ids of the ontology.

    ``severity`` is ``None`` for a nodule, whose extent is its diameter ``size_mm``; ``laterality`` is ``None`` for
    the heart, and otherwise one side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    laterality: Laterality | None = None
    site: str | None = None
    severity: str | None = None
    size_mm: float | None = None

    @property
    def key(self) -> str:
        """Name of the lesion's box: ``category/side``, or the category where there is no side."""
        return self.category if self.laterality is None else f"{self.category}/{self.laterality}"


class CategoryTruth(BaseModel):
    """What the image of a study shows of one category.

    ``laterality`` joins both sides to ``bilateral``; ``severity`` and ``size_mm`` are the largest of the lesions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["present", "absent"]
    laterality: Laterality | None = None
    sites: tuple[str, ...] = ()
    severity: str | None = None
    size_mm: float | None = None


def sample_lesions(rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Draw the lesions of one study: every category and side on its own, in the order of `CATEGORIES`."""
    lesions: list[Lesion] = []
    for category in CATEGORIES:
        if category == "cardiomegaly":
            if rng.random() < _CARDIOMEGALY_RATE:
                lesions.append(Lesion(category=category, severity=_pick(rng, ("mild", "moderate", "severe"))))
            continue
        first: Lesion | None = None
        for side in SIDES:
            if rng.random() >= _SIDE_RATE:
                continue
            if first is not None and category in _SYMMETRIC and rng.random() < _ALIKE_RATE:
                lesions.append(first.model_copy(update={"laterality": side}))
            else:
                first = _sided_lesion(rng, category, side)
                lesions.append(first)
    return tuple(lesions)


def thin_out(lesions: tuple[Lesion, ...], rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Leave lesions out until as few are left as real reports name: images show many so that models learn fast."""
    if not lesions or rng.random() < _NORMAL_SHARE:
        return ()
    return tuple(lesion for lesion in lesions if rng.random() < _KEPT_SHARE)


def study_truth(lesions: tuple[Lesion, ...]) -> dict[str, CategoryTruth]:
    """Sum up what an image shows: one entry for each of `CATEGORIES`, present or absent."""
    return {category: _category_truth([one for one in lesions if one.category == category]) for category in CATEGORIES}


def _category_truth(lesions: list[Lesion]) -> CategoryTruth:
    if not lesions:
        return CategoryTruth(status="absent")
    sides = {one.laterality for one in lesions}
    return CategoryTruth(
        status="present",
        laterality=Laterality.BILATERAL if len(sides) > 1 else lesions[0].laterality,
        sites=tuple(sorted({one.site for one in lesions if one.site is not None})),
        severity=max((one.severity for one in lesions), key=_SEVERITY_RANK.__getitem__),
        size_mm=max((one.size_mm for one in lesions if one.size_mm is not None), default=None),
    )


def _sided_lesion(rng: np.random.Generator, category: str, side: Laterality) -> Lesion:
    lobes = ("upper_lobe", "lower_lobe") if side is Laterality.LEFT else ("upper_lobe", "middle_lobe", "lower_lobe")
    if category == "nodule":
        return Lesion(category=category, laterality=side, site=_pick(rng, lobes), size_mm=float(rng.integers(16, 31)))
    if category == "consolidation":
        severity = _pick(rng, ("mild", "moderate", "severe"))
        return Lesion(category=category, laterality=side, site=_pick(rng, lobes), severity=severity)
    if category == "pneumothorax":
        severity = _pick(rng, ("mild", "moderate", "severe"))
        # A large one surrounds the lung; only smaller ones are confined to the apex.
        site = "lung_apex" if severity != "severe" and rng.random() < 0.5 else None
        return Lesion(category=category, laterality=side, site=site, severity=severity)
    severity = _pick(rng, ("minimal", "mild", "moderate", "severe"))
    return Lesion(category=category, laterality=side, severity=severity)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
