"""Zero-shot prompts for a category or a free text, worded like the training texts.

A label is scored by its positive prompts against its negated ones (method: POS and PNC scores). The prompts come from
the same functions as the training texts, so a label meets wording the text encoder knows; nothing in them is sampled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.finding import Certainty, Laterality
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.inject import InjectionMode, canonical_texts
from medfilip.knowledge.knowledge import Knowledge

MAX_LABEL_CHARACTERS = 300
_NEGATION = re.compile(r"^(?:no evidence of|no sign of|no visible|no|without|absence of)\s+")


@dataclass(frozen=True)
class Prompts:
    """Texts that say a label is there, and texts that say it is not."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]


def prompts(label: str, knowledge: Knowledge, ontology: Ontology, *, mode: InjectionMode = "conditioned") -> Prompts:
    """Write the prompts of an ontology id, an ontology label or synonym, or any free text.

    "moderate left pleural effusion" is understood as a category with severity and side and told with the attributes
    of exactly that; a text the ontology cannot read is used as it is, with a negation in front. A negated label
    ("no pneumothorax") gets the prompts of its opposite, exchanged. ``mode`` should be the one of the training texts.

    Raises
    ------
    MedfilipError
        ``REQUEST_INVALID`` if the label is empty or longer than 300 characters.
    """
    text = " ".join(label.split())
    if not text or len(text) > MAX_LABEL_CHARACTERS:
        raise MedfilipError(
            ErrorCode.REQUEST_INVALID,
            f"A label must have 1 to {MAX_LABEL_CHARACTERS} characters; this one has {len(text)}.",
            fix="Give a category id, its name or a short description.",
        )
    negated = _NEGATION.match(text.lower())
    if negated and text[negated.end() :]:
        opposite = prompts(text[negated.end() :], knowledge, ontology, mode=mode)
        return Prompts(positive=opposite.negative, negative=opposite.positive)
    finding = read_label(text, ontology)
    if finding is None:
        return Prompts(positive=(text,), negative=(f"no {text}", f"no evidence of {text}"))
    absent = {"category": finding["category"], "certainty": Certainty.ABSENT}
    return Prompts(
        positive=tuple(canonical_texts(finding, knowledge, ontology, mode=mode)),
        negative=tuple(canonical_texts(absent, knowledge, ontology, mode=mode)),
    )


def read_label(label: str, ontology: Ontology) -> dict[str, object] | None:
    """Read "[severity] [side] [patterns] category [in the site]" as a present finding; ``None`` if a word is left."""
    if label in ontology.categories:
        return {"category": label, "certainty": Certainty.PRESENT}
    text = label.lower().strip(" .")
    text, _, place = text.partition(" in the ")
    sites = [_site(name, ontology) for name in place.split(" and ")] if place else []
    if None in sites:
        return None
    finding: dict[str, object] = {"certainty": Certainty.PRESENT, "sites": sites}
    for slot, terms in (("severity", _severity_terms(ontology)), ("laterality", {str(s): str(s) for s in Laterality})):
        # Longest first: "mild to moderate" is one rank, not "mild" followed by leftovers.
        for term in sorted(terms, key=len, reverse=True):
            if text.startswith(f"{term} "):
                finding[slot], text = terms[term], text[len(term) + 1 :]
                break
    terms_of_category = ontology.category_of_term
    patterns: list[str] = []
    # A label may itself begin with a pattern word ("interstitial opacity"), so the category is looked up first.
    while text not in terms_of_category and text.partition(" ")[0] in ontology.patterns:
        pattern, _, text = text.partition(" ")
        patterns.append(pattern)
    category = terms_of_category.get(text)
    return None if category is None else {"category": category, "patterns": patterns, **finding}


def _site(name: str, ontology: Ontology) -> str | None:
    identifier = name.strip().replace(" ", "_")
    if identifier in ontology.sites:
        return identifier
    return next((site.id for site in ontology.sites.values() if name.strip() in site.synonyms), None)


def _severity_terms(ontology: Ontology) -> dict[str, str]:
    return {term: rank for rank, terms in ontology.severities.items() for term in terms}
