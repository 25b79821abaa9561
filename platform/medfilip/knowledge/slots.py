"""What a finding can be told by beside its category: labels that differ from one another in one word.

Evaluation asks which of them fits a finding that is known to be there, the endpoint which fits one that it found.
"""

from __future__ import annotations

from typing import Literal, get_args

from medfilip.findings.finding import Laterality
from medfilip.findings.ontology import Ontology

Slot = Literal["severity", "laterality", "site"]
SLOTS: tuple[Slot, ...] = get_args(Slot)
SIDES = (str(Laterality.LEFT), str(Laterality.RIGHT))
"""What is on both sides has no side to choose."""


def slot_values(slot: Slot, ontology: Ontology) -> tuple[str, ...]:
    """Return all values of a slot, in the order of the ontology: severities from least to most."""
    values: dict[Slot, tuple[str, ...]] = {
        "laterality": SIDES,
        "severity": tuple(ontology.severities),
        "site": tuple(ontology.sites),
    }
    return values[slot]


def slot_label(slot: Slot, value: str, category: str, ontology: Ontology) -> str:
    """Write the label of a category with one slot filled, for example "nodule in the upper lobe"."""
    name = ontology.label(category)
    return f"{name} in the {value.replace('_', ' ')}" if slot == "site" else f"{value} {name}"
