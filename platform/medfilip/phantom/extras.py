"""Sentences about findings that need no phrase of their own: of the text alone, or of what an image shows.

Findings of the text alone (devices, postoperative, degenerative, benign ones) are statements of the report and so in
its truth. Where the report belongs to an image, none of them is kin to a category that the image can show (no
granuloma, which is a nodule): text and image must not contradict. What is drawn is told by the same sentences, their
slots filled from the lesion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import yaml

from medfilip.findings.finding import Laterality
from medfilip.findings.ontology import load_ontology
from medfilip.phantom.dice import Dice
from medfilip.phantom.lesions import Lesion
from medfilip.phantom.writer import Slot


def _slots(name: str, pairs: Iterable[str]) -> tuple[Slot, ...]:
    """Build slots from ``"words=value"``, or ``"words"`` where both are the same."""
    found = (pair.partition("=") for pair in pairs)
    return tuple(Slot(name, words, value or words) for words, _, value in found)


LOBES = {
    (Laterality.RIGHT, "upper_lobe"): "RUL",
    (Laterality.RIGHT, "middle_lobe"): "RML",
    (Laterality.RIGHT, "lower_lobe"): "RLL",
    (Laterality.LEFT, "upper_lobe"): "LUL",
    (Laterality.LEFT, "lower_lobe"): "LLL",
}
"""How a lobe is abbreviated; the letters name side and site."""


@dataclass(frozen=True)
class Extra:
    """A finding of the text alone.

    Attributes
    ----------
    category
        Ontology id.
    forms
        Sentences without the full stop, the usual ones first. Slots are ``{degree}``, ``{laterality}``, ``{site}``,
        ``{position}``, ``{chronicity}``, ``{size_mm}`` or one of `FIXED`; ``NUM``, ``RIB`` and ``LEVEL`` become
        numbers, ``EDEMA`` its American or British spelling.
    sites, positions, degrees
        What the slots may hold.
    drawn
        Whether only an image gives rise to it: a finding that no report without an image names.
    shown
        Forms for drawn lesions alone.
    """

    category: str
    forms: tuple[str, ...]
    sites: tuple[Slot, ...] = ()
    positions: tuple[Slot, ...] = ()
    degrees: tuple[Slot, ...] = ()
    drawn: bool = False
    shown: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def load_extras() -> tuple[Extra, ...]:
    """Load the extras that ship with the package, the common ones first."""
    text = (files("medfilip.phantom") / "data" / "extras.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    lists: dict[str | None, list[str]] = {None: [], "none": [], **data["lists"]}
    return tuple(
        Extra(
            entry["category"],
            tuple(entry["forms"]),
            _slots("site", lists[entry.get("sites")]),
            _slots("position", lists[entry.get("positions")]),
            _slots("severity", lists[entry.get("degrees", "degrees")]),
            entry.get("drawn", False),
            tuple(entry.get("shown", ())),
        )
        for entry in data["extras"]
    )


FIXED: dict[str, Slot] = {
    "streaky": Slot("pattern", "streaky", "streaky"),
    "linear": Slot("pattern", "linear", "streaky"),
    "diffuse": Slot("pattern", "diffuse", "diffuse"),
    "interstitial": Slot("pattern", "interstitial", "interstitial"),
    "upper_lobes": Slot("site", "upper lobes", "upper_lobe"),
    "mediastinum": Slot("site", "mediastinum", "mediastinum"),
    "mediastinal": Slot("site", "mediastinal", "mediastinum"),
    "hilum": Slot("site", "hilum", "hilum"),
    "hilar": Slot("site", "hilar", "hilum"),
    "perihilar": Slot("site", "perihilar", "hilum"),
    "quadrant": Slot("site", "upper quadrant", "abdomen"),
    "chest_wall": Slot("site", "chest wall", "chest_wall"),
    "axilla": Slot("site", "axilla", "chest_wall"),
    "shoulder": Slot("site", "shoulder", "shoulder"),
    "hemidiaphragm": Slot("site", "hemidiaphragm", "diaphragm"),
    "cervical": Slot("site", "cervical", "cervical_spine"),
}
"""Slots of forms whose words are always the same."""

_SIDES = (Slot("laterality", "left", Laterality.LEFT), Slot("laterality", "right", Laterality.RIGHT))
_AGES = _slots("chronicity", ("old=chronic", "chronic", "healed", "healing=healed", "acute", "remote=chronic"))
_SIZES = _slots("size", ("small", "moderate-sized=medium", "large", "tiny"))


def fill(extra: Extra, form: str, dice: Dice, *, change: Slot | None, detail: float) -> dict[str, Slot | None]:
    """Draw the slots of a form; those that are mere detail are filled with probability ``detail``."""
    slots: dict[str, Slot | None] = {}
    if "{degree}" in form and extra.degrees and dice.chance(detail):
        slots["degree"] = dice.favour(extra.degrees)
    if "{laterality}" in form:
        slots["laterality"] = dice.pick(_SIDES)
    if "{site}" in form:
        slots["site"] = dice.favour(extra.sites)
    if "{position}" in form:
        slots["position"] = dice.favour(extra.positions)
    if "{chronicity}" in form:
        slots["chronicity"] = dice.favour(_AGES)
    if "{size}" in form and dice.chance(detail):
        slots["size"] = dice.favour(_SIZES)
    if "{size_mm}" in form:
        tenths = dice.number(30, 95)
        words, value = (f"{tenths / 10:.1f} cm", float(tenths)) if dice.chance(0.7) else (f"{tenths} mm", float(tenths))
        slots["size_mm"] = Slot("size_mm", words, value)
    if "{" in form:
        slots |= {name: slot for name, slot in FIXED.items() if f"{{{name}}}" in form}
    slots["change"] = change
    return slots


_LIKE = {
    "hyperinflation": ("emphysema", "copd", "chronic_lung_disease"),
    "hypoinflation": ("elevated_hemidiaphragm", "diaphragmatic_eventration"),
    "atelectasis": ("elevated_hemidiaphragm", "diaphragmatic_eventration", "scarring"),
    "edema": ("heart_failure", "vascular_congestion", "bronchial_wall_thickening"),
    "pleural_effusion": ("costophrenic_angle_blunting",),
    "interstitial_opacity": ("scarring", "bronchiectasis"),
    "pacemaker": ("icd",),
    "sternotomy_wires": ("valve_prosthesis",),
    "cavity": ("lung_lesion",),
    "tortuous_aorta": ("mediastinal_widening", "aortic_enlargement"),
}
"""What is no kin in the ontology, but looks the same or goes with it."""


_NEVER_DRAWN = ("mastectomy", "joint_prosthesis", "spinal_hardware", "external_device")
"""What would catch the eye on any image, and is on none."""


@lru_cache(maxsize=8)
def unrelated(shown: tuple[str, ...]) -> tuple[Extra, ...]:
    """Extras that are no kin to any category that images show: the image can neither prove nor contradict them."""
    ontology = load_ontology()
    kin: set[str] = {*_NEVER_DRAWN}
    for category in shown:
        kin |= {category, *ontology.ancestors(category), *ontology.descendants(category), *_LIKE.get(category, ())}
    return tuple(extra for extra in load_extras() if extra.category not in kin)


@lru_cache(maxsize=1)
def extras_by_category() -> dict[str, Extra]:
    """Return the extras by their category."""
    return {extra.category: extra for extra in load_extras()}


_UNSEEN = (
    "RIB", "TLEVEL", "IJ ", "subclavian", "dialysis", "tracheostomy", "pigtail", "lead", "suture", "S-shaped",
    "thoracolumbar",
)  # fmt: skip
"""Details that a drawn lesion does not have."""
_HERNIA_SIZES = {"mild": "small", "moderate": "medium", "severe": "large"}


def forms_for(extra: Extra, lesion: Lesion) -> tuple[str, ...]:
    """Sentences that a drawn lesion bears out: no side where it has none, no place but its own, no unseen detail."""
    fitting = []
    for form in (*extra.forms, *extra.shown):
        fixed = {slot.value for name, slot in FIXED.items() if f"{{{name}}}" in form and slot.name == "site"}
        if any(word in form for word in _UNSEEN) or ("{laterality}" in form and lesion.laterality is None):
            continue
        if "{interstitial}" in form and lesion.severity != "mild":
            continue
        if lesion.category == "surgical_material":
            named = fixed
            if named != {lesion.site}:
                continue
        if "{site}" in form and not _fitting(extra.sites, lesion.site):
            continue
        fitting.append(form)
    return tuple(fitting)


def _fitting(slots: tuple[Slot, ...], value: str | None) -> tuple[Slot, ...]:
    """Slots that say a value, or any where there is none to say."""
    return tuple(slot for slot in slots if value is None or slot.value == value)


def fill_shown(
    extra: Extra, form: str, lesion: Lesion, dice: Dice, *, change: Slot | None, detail: float
) -> dict[str, Slot | None]:
    """Fill the slots of a form from a drawn lesion."""
    slots: dict[str, Slot | None] = {}
    degrees = _fitting(extra.degrees, lesion.severity) if lesion.severity is not None else ()
    if "{degree}" in form and degrees and dice.chance(detail):
        slots["degree"] = dice.favour(degrees)
    if "{laterality}" in form and lesion.laterality is not None:
        slots["laterality"] = Slot("laterality", str(lesion.laterality), lesion.laterality)
    if "{site}" in form:
        slots["site"] = dice.favour(_fitting(extra.sites, lesion.site))
    if "{position}" in form:
        slots["position"] = dice.favour(_fitting(extra.positions, lesion.position))
    if "{chronicity}" in form:
        slots["chronicity"] = dice.favour(_AGES) if dice.chance(detail) else None
    if "{size}" in form and dice.chance(detail):
        slots["size"] = dice.favour(_fitting(_SIZES, _HERNIA_SIZES[lesion.severity or "mild"]))
    slots |= {name: slot for name, slot in FIXED.items() if f"{{{name}}}" in form}
    slots["change"] = change
    return slots
