"""Findings that phantom reports name and phantom images do not show: devices, postoperative, degenerative, benign ones.

They are statements of the report and so in its truth. Where the report belongs to an image, none of them is related
to a category that the image can show (no granuloma, which is a nodule): text and image must not contradict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import yaml

from medfilip.findings.finding import Laterality
from medfilip.phantom.dice import Dice
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
    related
        Whether it is kin to a category that images show, and so only for reports without an image.
    """

    category: str
    forms: tuple[str, ...]
    sites: tuple[Slot, ...] = ()
    positions: tuple[Slot, ...] = ()
    degrees: tuple[Slot, ...] = ()
    related: bool = False


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
            entry.get("related", False),
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
