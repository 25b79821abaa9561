"""What a knowledge file should not say, beyond what its schema refuses.

Errors make injected text wrong: a phrase that denies instead of telling, that names another category (the text of
one category would then stand for two), that is too long for a text encoder, or that nobody can trace to a source.
Warnings are for the reader.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from medfilip.findings.ontology import Ontology
from medfilip.knowledge.knowledge import Entry, Knowledge
from medfilip.knowledge.reading import Flaw

MAX_DESCRIPTION_WORDS = 40
_LEAST_DESCRIPTION_WORDS = 5
_NEGATION = re.compile(
    r"\b(?:no|not|nor|non|neither|never|none|nothing|without|absent|absence|lack(?:s|ing)?|devoid|free from|free of"
    r"|cannot|can't|isn't|unremarkable|den(?:y|ies))\b",
    re.IGNORECASE,
)

# Not even as a verb: where an image is mirrored, every left and right of its texts is exchanged.
_SIDE = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)
_TOLD_SINGLY = 5

Severity = Literal["error", "warning"]
Rule = Literal[
    "schema", "duplicate", "negation", "side", "other_category", "too_long", "missing_sources", "unknown_source",
    "missing_entry", "short_description", "both",
]  # fmt: skip


class Problem(NamedTuple):
    """A problem, with the category and the axis (or ``descriptions``) it stands at; empty where there is none."""

    severity: Severity
    rule: Rule
    category: str
    axis: str
    message: str


def lint(knowledge: Knowledge, ontology: Ontology, flaws: Sequence[Flaw] = ()) -> list[Problem]:
    """Return all problems of some knowledge, errors first, in the order of its entries.

    Parameters
    ----------
    flaws
        What made some of it unusable (`medfilip.knowledge.reading.inspect_documents`).
    """
    problems = [Problem("error", "schema", "", flaw.place, flaw.message) for flaw in flaws]
    for entry in knowledge.entries.values():
        problems += _of_entry(entry, knowledge, ontology)
    problems += _of_coverage(knowledge, ontology)
    return sorted(problems, key=lambda problem: problem.severity)


def _of_entry(entry: Entry, knowledge: Knowledge, ontology: Ontology) -> Iterator[Problem]:
    category = entry.category
    texts = list(entry.texts())
    counted = Counter(text.casefold() for _, text in texts)
    for axis, text in texts:
        if counted[text.casefold()] > 1:
            counted[text.casefold()] = 0
            yield Problem("error", "duplicate", category, axis, f"'{text}' stands in it more than once")
        if negated(text):
            yield Problem("error", "negation", category, axis, f"'{text}' denies something; say what is seen")
        if _SIDE.search(text):
            yield Problem("error", "side", category, axis, f"'{text}' says left or right, which a finding says itself")
        yield from (
            Problem("error", "other_category", category, axis, f"'{text}' names the category {other}")
            for other in named_categories(text, category, ontology, knowledge.signs)
        )
    for text in entry.descriptions:
        words = len(text.split())
        if words > MAX_DESCRIPTION_WORDS:
            limit = f"has {words} words; at most {MAX_DESCRIPTION_WORDS} fit a text encoder"
            yield Problem("error", "too_long", category, "descriptions", f"'{text[:40]}…' {limit}")
        if words < _LEAST_DESCRIPTION_WORDS:
            yield Problem("warning", "short_description", category, "descriptions", f"'{text}' says little")
    if not entry.sources:
        yield Problem("error", "missing_sources", category, "", "it names no source")
    for source in entry.sources:
        if source not in knowledge.sources:
            yield Problem("error", "unknown_source", category, "", f"its source '{source}' is not in the table")


def _of_coverage(knowledge: Knowledge, ontology: Ontology) -> Iterator[Problem]:
    for category in knowledge.without_entry:
        if category in knowledge.entries:
            yield Problem("error", "both", category, "", "it has an entry and a reason for having none")
    covered = knowledge.entries.keys() | knowledge.without_entry.keys()
    missing = [category for category in ontology.categories if category not in covered]
    if len(missing) > _TOLD_SINGLY:  # a part of the whole, such as the drafts of a run
        some = ", ".join(missing[:_TOLD_SINGLY])
        yield Problem("warning", "missing_entry", "", "", f"{len(missing)} categories have no entry: {some}, …")
        return
    for category in missing:
        yield Problem("warning", "missing_entry", category, "", "it has no entry and no reason for that")


def negated(text: str) -> bool:
    """Whether a phrase holds a word that denies.

    >>> negated("vessels without a blurred outline"), negated("sharp vessels")
    (True, False)
    """
    return _NEGATION.search(text) is not None


def named_categories(text: str, category: str, ontology: Ontology, signs: Iterable[str] = ()) -> list[str]:
    """Return other categories whose label stands in a phrase; ancestors, descendants and ``signs`` may stand there."""
    allowed = {category, *signs} | ontology.ancestors(category) | ontology.descendants(category)
    pattern, ids = _label_pattern(tuple((item.id, item.label) for item in ontology.categories.values()))
    found = (ids[match.group(1).casefold()] for match in pattern.finditer(text))
    return sorted({other for other in found if other not in allowed})


@lru_cache(maxsize=2)
def _label_pattern(labels: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    ids = {label.casefold(): category for category, label in labels}
    # Longest first: "calcified granuloma" is one name, not "granuloma" after another word.
    names = "|".join(re.escape(label) for label in sorted(ids, key=len, reverse=True))
    return re.compile(rf"\b({names})(?:s|es)?\b", re.IGNORECASE), ids
