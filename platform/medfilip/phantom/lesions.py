"""What a phantom has: drawn first, so that the report and the image are two accounts of one truth."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.finding import Laterality

SIDES = (Laterality.LEFT, Laterality.RIGHT)
_GRADES = ("mild", "moderate", "severe")
_LOBES = {
    Laterality.LEFT: ("upper_lobe", "lower_lobe"),
    Laterality.RIGHT: ("upper_lobe", "middle_lobe", "lower_lobe"),
}


@dataclass(frozen=True)
class Kind:
    """How a category of the ontology occurs.

    Attributes
    ----------
    rate
        Share of the studies (of sided categories: of the sides) that have it.
    bedside
        Factor of the rate on bedside (AP) and on upright (PA) images; devices are commoner at the bedside.
    sides
        Sides on which it occurs; none for what has no side.
    grades
        Severities, all as likely.
    alike
        Whether both sides are often the same.
    """

    rate: float
    bedside: tuple[float, float] = (1.0, 1.0)
    sides: tuple[Laterality, ...] = ()
    grades: tuple[str, ...] = _GRADES
    alike: bool = False


_L, _R = Laterality.LEFT, Laterality.RIGHT
_DEVICE = (2.0, 0.5)
KINDS: dict[str, Kind] = {
    "pleural_effusion": Kind(0.075, sides=SIDES, grades=("minimal", *_GRADES), alike=True),
    "consolidation": Kind(0.065, sides=SIDES, alike=True),
    "nodule": Kind(0.055, sides=SIDES, grades=()),
    "cardiomegaly": Kind(0.14),
    "pneumothorax": Kind(0.045, sides=SIDES),
    "atelectasis": Kind(0.060, sides=SIDES),
    "edema": Kind(0.09),
    "interstitial_opacity": Kind(0.08),
    "mass": Kind(0.04, sides=SIDES, grades=()),
    "cavity": Kind(0.03, sides=SIDES, grades=()),
    "hyperinflation": Kind(0.08),
    "hypoinflation": Kind(0.09),
    "hiatal_hernia": Kind(0.06),
    "rib_fracture": Kind(0.035, sides=SIDES, grades=()),
    "scoliosis": Kind(0.08),
    "tortuous_aorta": Kind(0.09),
    "aortic_calcification": Kind(0.08, grades=()),
    "pneumoperitoneum": Kind(0.05, sides=(_R,)),
    "subcutaneous_emphysema": Kind(0.03, sides=SIDES),
    "endotracheal_tube": Kind(0.08, (2.4, 0.1), grades=()),
    "enteric_tube": Kind(0.08, _DEVICE, grades=()),
    "central_venous_catheter": Kind(0.05, _DEVICE, sides=SIDES, grades=()),
    "chest_tube": Kind(0.035, _DEVICE, sides=SIDES, grades=()),
    "pacemaker": Kind(0.035, sides=SIDES, grades=()),
    "sternotomy_wires": Kind(0.07, grades=()),
    "surgical_material": Kind(0.035, sides=SIDES, grades=()),
}
CATEGORIES = tuple(KINDS)
"""Categories of the ontology that a phantom image can show."""

BASIC_CATEGORIES = ("pleural_effusion", "consolidation", "nodule", "cardiomegaly", "pneumothorax")
"""The five of reports without images."""
DEVICES = (
    "endotracheal_tube", "enteric_tube", "central_venous_catheter", "chest_tube", "pacemaker", "sternotomy_wires",
    "surgical_material",
)  # fmt: skip
"""What was put into the patient: independent of everything else that is drawn."""
FRONTAL_ONLY = ("cardiomegaly", "pneumothorax", "scoliosis", "rib_fracture")
"""Categories that the ontology lets only a frontal view judge."""

_BASIC_RATES = dict.fromkeys(BASIC_CATEGORIES, 0.2) | {"cardiomegaly": 0.35}
_EXCLUSIVE = {"hypoinflation": "hyperinflation"}
_ALIKE_RATE = 0.5  # of bilateral effusions and consolidations: the same on both sides, which reports put in one phrase
_NORMAL_SHARE, _KEPT_SHARE = 0.5, 0.4
_SEVERITY_RANK = {None: 0, "minimal": 1, "mild": 2, "moderate": 3, "severe": 4}


class Lesion(BaseModel):
    """One thing that is drawn; categories, sites, severities and positions are ids of the ontology.

    ``severity`` is ``None`` for what is measured (``size_mm``: the diameter of a nodule, mass or cavity) and for
    devices, of which ``position`` says where the tip lies and ``tip_mm`` how far it is from there. ``laterality`` is
    one side, or ``None`` for what has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    laterality: Laterality | None = None
    site: str | None = None
    severity: str | None = None
    size_mm: float | None = None
    position: str | None = None
    tip_mm: float | None = None

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
    position: str | None = None


def check_categories(categories: Collection[str]) -> tuple[str, ...]:
    """Return categories in the order of `CATEGORIES`.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if there are none, or one that no phantom shows.
    """
    unknown = sorted(set(categories) - set(CATEGORIES))
    if unknown or not categories:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"Phantoms cannot show {', '.join(unknown)}." if unknown else "A phantom corpus needs a category.",
            fix=f"Choose from {', '.join(CATEGORIES)}.",
        )
    return tuple(category for category in CATEGORIES if category in categories)


def sample_lesions(rng: np.random.Generator, categories: Collection[str] = BASIC_CATEGORIES) -> tuple[Lesion, ...]:
    """Draw the lesions of a report without an image: every category and side on its own, one stream for all."""
    lesions: list[Lesion] = []
    for category in CATEGORIES:
        if category in categories:
            lesions += _sample_category(rng, category, _BASIC_RATES.get(category, KINDS[category].rate))
    return tuple(lesions)


def sample_study(
    seed: int,
    index: int,
    *,
    bedside: bool,
    categories: Collection[str] = CATEGORIES,
    prevalence: float | None = None,
) -> tuple[Lesion, ...]:
    """Draw the lesions of a study, every category from a random stream of its own, in the order of `CATEGORIES`.

    Parameters
    ----------
    seed, index
        Name the study.
    bedside
        Whether its frontal image is taken at the bedside, where devices are commoner.
    categories
        What may occur; leaving one out changes none of the others.
    prevalence
        Share of the studies that have a category, instead of each category's own.
    """
    lesions: list[Lesion] = []
    for number, category in enumerate(CATEGORIES):
        if category not in categories or any(one.category == _EXCLUSIVE.get(category) for one in lesions):
            continue
        kind = KINDS[category]
        rate = kind.rate * kind.bedside[0 if bedside else 1]
        if prevalence is not None:
            rate = 1.0 - math.sqrt(1.0 - prevalence) if len(kind.sides) == 2 else prevalence
        lesions += _sample_category(np.random.default_rng([seed, index, 3, number]), category, rate)
    return tuple(lesions)


def _sample_category(rng: np.random.Generator, category: str, rate: float) -> list[Lesion]:
    kind = KINDS[category]
    if not kind.sides:
        return [_lesion(rng, category, None)] if rng.random() < rate else []
    found: list[Lesion] = []
    for side in kind.sides:
        if rng.random() >= rate:
            continue
        if found and kind.alike and rng.random() < _ALIKE_RATE:
            found.append(found[0].model_copy(update={"laterality": side}))
        else:
            found.append(_lesion(rng, category, side))
    return found


def _lesion(rng: np.random.Generator, category: str, side: Laterality | None) -> Lesion:
    """Draw what sets a lesion of a category apart."""
    grades = KINDS[category].grades
    others: dict[str, object] = {}
    if category in ("nodule", "consolidation", "mass", "cavity") and side is not None:
        others["site"] = _pick(rng, _LOBES[side])
    if category in _DIAMETERS:
        others["size_mm"] = float(rng.integers(*_DIAMETERS[category]))
    if grades:
        others["severity"] = _pick(rng, grades)
    if category == "pneumothorax":
        # A large one surrounds the lung; only smaller ones are confined to the apex.
        others["site"] = "lung_apex" if others["severity"] != "severe" and rng.random() < 0.5 else None
    if category == "atelectasis":
        others["site"] = "lower_lobe" if rng.random() < 0.7 else "upper_lobe"
    if category in _SITES:
        others["site"] = _pick(rng, _SITES[category])
    if category in _POSITIONS:
        others["position"] = _pick(rng, _POSITIONS[category])
    if category == "endotracheal_tube":
        others["tip_mm"] = float(rng.integers(20, 66))
    return Lesion.model_validate({"category": category, "laterality": side, **others})


_DIAMETERS = {"nodule": (16, 31), "mass": (35, 76), "cavity": (28, 56)}
_SITES = {
    "chest_tube": ("lung_apex", "lung_base"),
    "surgical_material": ("hilum", "chest_wall", "abdomen"),
}
_POSITIONS = {
    "endotracheal_tube": ("above_carina",),
    "enteric_tube": ("stomach",),
    "central_venous_catheter": (
        "superior_vena_cava", "superior_vena_cava", "cavoatrial_junction", "right_atrium", "brachiocephalic_vein",
    ),
}  # fmt: skip


def thin_out(lesions: tuple[Lesion, ...], rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Leave lesions out until as few are left as real reports name: images show many so that models learn fast."""
    if not lesions or rng.random() < _NORMAL_SHARE:
        return ()
    return tuple(lesion for lesion in lesions if rng.random() < _KEPT_SHARE)


def study_truth(lesions: tuple[Lesion, ...], categories: Collection[str] = CATEGORIES) -> dict[str, CategoryTruth]:
    """Sum up what an image shows: one entry for each of the categories, present or absent."""
    return {
        category: _category_truth([one for one in lesions if one.category == category])
        for category in CATEGORIES
        if category in categories
    }


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
        position=next((one.position for one in lesions if one.position is not None), None),
    )


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
