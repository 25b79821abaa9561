"""Labels that corpora give their images → findings of the ontology.

A label set is what one table can say: the fourteen labels of ChestX-ray14 (Wang et al., CVPR 2017), the fourteen of
CheXpert (Irvin et al., AAAI 2019), or any other list of names. Of each study it says one state per label, written as
one character, so that a table of a million rows is a column of short strings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medfilip.core.ids import hash64
from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import Ontology

PRESENT, ABSENT, UNCERTAIN, UNSAID = "1", "0", "u", "."
"""States of a label."""

_NO_FINDING = frozenset({"no finding", "normal", "no findings", "healthy", "no abnormality"})
_CERTAINTY = {PRESENT: Certainty.PRESENT, ABSENT: Certainty.ABSENT, UNCERTAIN: Certainty.UNCERTAIN}
_PLACES = frozenset({"lung", "pulmonary", "thoracic"})
_STRENGTH = (PRESENT, UNCERTAIN, ABSENT)


def plain_label(name: str) -> str:
    """Return a label's name in lower case with single spaces: ``Pleural_Thickening`` → ``pleural thickening``."""
    return " ".join(re.sub(r"[\W_]+", " ", name.lower()).split())


def is_no_finding(name: str) -> bool:
    """Whether a label says that there is none of the findings of its set."""
    return plain_label(name) in _NO_FINDING


def label_category(name: str, ontology: Ontology) -> str:
    """Return the category that a label names, ``other:<name>`` if the ontology has none.

    A label that stands for several categories (``Fracture``, ``Support Devices``) is the nearest one above them all.
    """
    wanted = plain_label(name)
    for category in ontology.categories.values():
        if wanted == plain_label(category.crosswalk.nih14 or ""):
            return category.id
    several = [one.id for one in ontology.categories.values() if wanted == plain_label(one.crosswalk.chexpert14 or "")]
    if len(several) == 1:
        return several[0]
    for category in ontology.categories.values():
        if wanted == plain_label(category.id) or wanted in map(plain_label, category.terms):
            return category.id
    first, _, rest = wanted.partition(" ")
    if first in _PLACES and rest:
        found = label_category(rest, ontology)
        if not found.startswith("other:"):
            return found
    return _nearest_common(several, ontology) or f"other:{wanted}"


def _nearest_common(categories: Sequence[str], ontology: Ontology) -> str | None:
    """Return the lowest category that is or stands above each of some categories."""
    if not categories:
        return None
    common = frozenset.intersection(*(ontology.ancestors(one) | {one} for one in categories))
    return max(common, key=lambda one: (len(ontology.ancestors(one)), one), default=None)


@dataclass(frozen=True)
class LabelSet:
    """The labels of a corpus, in the order of the characters of a state string.

    Attributes
    ----------
    names
        As the corpus writes them.
    categories
        Category of each; ``None`` for a label that says that there is no finding.
    devices
        Which of them are devices: a radiograph with a tube may still have no finding.
    """

    names: tuple[str, ...]
    categories: tuple[str | None, ...]
    devices: tuple[bool, ...]

    @classmethod
    def of(cls, names: Sequence[str], ontology: Ontology) -> LabelSet:
        """Look labels up in the ontology."""
        categories = [None if is_no_finding(name) else label_category(name, ontology) for name in names]
        devices = [
            plain_label(name) == "support devices"
            or (category in ontology.categories and ontology.categories[category].group == "device")
            for name, category in zip(names, categories, strict=True)
        ]
        return cls(tuple(names), tuple(categories), tuple(devices))

    def merge(self, states: Sequence[str]) -> str:
        """Join the states of a study's images."""
        return merge_states(states)

    def findings(self, states: str, study_id: str) -> list[dict[str, Any]]:
        """Return the findings of a study as rows of ``resolved_findings``, ordered by category.

        A label of no finding is none itself: when it is present, the labels that are unsaid are absent, devices aside.
        Where two labels name one category, what is present wins.
        """
        normal = any(
            category is None and state == PRESENT for category, state in zip(self.categories, states, strict=True)
        )
        found: dict[str, str] = {}
        for category, device, said in zip(self.categories, self.devices, states, strict=True):
            state = ABSENT if said == UNSAID and normal and not device else said
            if category is not None and _rank(state) < _rank(found.get(category, UNSAID)):
                found[category] = state
        return [_finding(study_id, category, state) for category, state in sorted(found.items())]


def merge_states(states: Sequence[str]) -> str:
    """Join what several images or readers say, as strings of one character a label: what one of them sees is there."""
    if len(set(states)) == 1:
        return states[0]
    return "".join(next((s for s in _STRENGTH if s in column), UNSAID) for column in zip(*states, strict=True))


def _finding(study_id: str, category: str, state: str) -> dict[str, Any]:
    return {
        "finding_id": hash64("label", study_id, category),
        "study_id": study_id,
        "category": category,
        "certainty": str(_CERTAINTY[state]),
        "sites": [],
        "patterns": [],
        "mention_ids": [],
        "conflict": False,
    }


def _rank(state: str) -> int:
    return _STRENGTH.index(state) if state in _STRENGTH else len(_STRENGTH)
