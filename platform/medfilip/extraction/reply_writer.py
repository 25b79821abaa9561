"""Findings → the reply a model should have written for them: examples, training data, and the measure of the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medfilip.extraction.names import Names
from medfilip.extraction.reply_format import (
    CERTAINTIES,
    CHANGES,
    CHRONICITIES,
    HEDGES,
    MAX_FINDINGS,
    MAX_MENTION,
    MAX_QUALIFIER,
    SIDES,
    CertaintyCode,
    Reply,
    ReplyFinding,
)

_CODES: dict[str, dict[str, str]] = {
    "certainty": {str(value): str(code) for code, value in CERTAINTIES.items()},
    "hedge": {str(value): code for code, value in HEDGES.items()},
    "laterality": {str(value): code for code, value in SIDES.items()},
    "change": {str(value): code for code, value in CHANGES.items()},
    "chronicity": {str(value): code for code, value in CHRONICITIES.items()},
}


def reply_of(sentence: str, findings: Sequence[Mapping[str, Any]], names: Names) -> Reply:
    """Return the reply that says what ``findings`` say of ``sentence`` (rows with evidence spans into it)."""
    return Reply(f=tuple(_item(sentence, row, names) for row in findings[:MAX_FINDINGS]))


def _item(sentence: str, row: Mapping[str, Any], names: Names) -> ReplyFinding:
    words: dict[str, list[str]] = {}
    for span in row["evidence"]:
        words.setdefault(span["slot"], []).append(sentence[span["start"] : span["end"]])
    mention = words["mention"][0][:MAX_MENTION]
    known = names.category(mention) == row["category"]
    qualifiers = [_CODES["hedge"].get(row["hedge"] or "")]
    qualifiers += [*words.get("severity", ()), *words.get("size", ())][:1] or [row["severity"] or row["size"]]
    if row["size_mm"] is not None:
        qualifiers += words.get("size_mm") or [f"{row['size_mm']:g} mm"]
    if row["count"] is not None:
        qualifiers.append(str(row["count"]))
    qualifiers.append(_CODES["laterality"].get(row["laterality"] or ""))
    qualifiers += [site.replace("_", " ") for site in row["sites"]]
    qualifiers += [_pattern_words(value, words.get("pattern", ()), names) for value in row["patterns"]]
    qualifiers += [_CODES[slot].get(row[slot] or "") for slot in ("change", "chronicity")]
    return ReplyFinding(
        mention=mention,
        certainty=CertaintyCode(_CODES["certainty"][row["certainty"]]),
        category=None if known else names.ontology.label(row["category"]).lower()[:MAX_QUALIFIER],
        position=(words.get("position") or [row["position"]])[0],
        qualifiers=tuple(dict.fromkeys(text[:MAX_QUALIFIER] for text in qualifiers if text)),
    )


def _pattern_words(value: str, said: Sequence[str], names: Names) -> str:
    """Return the sentence's own words for a pattern, which the reader asks for: "linear", not "streaky"."""
    return next((words for words in said if names.pattern(words) == value), value)
