"""Disagreements with a truth, each with the sentences it comes from: the material of the page of errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medfilip.evaluation.agreement import Atom, ReportFindings

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Passage:
    """A sentence of a report with marked spans: half-open offsets into ``text``, and what each one marks."""

    text: str
    marks: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Disagreement:
    """One difference between annotators and extractor.

    Attributes
    ----------
    kind
        ``missing`` (annotated, not stated), ``added`` (stated, not annotated), ``side``, ``region`` or ``severity``.
    annotated, predicted
        What each says of the category in this report, in words.
    phenomena
        Signs of the sentences: hedges, denials, doubts.
    confidence
        Highest confidence behind it: confident errors are the ones to look at first.
    """

    report_id: str
    kind: str
    category: str
    annotated: str
    predicted: str
    phenomena: tuple[str, ...]
    confidence: float
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class ReportTexts:
    """A report's text with its sentences (start, end, doubts) and mentions (rows of ``mentions``)."""

    text: str
    sentences: Sequence[tuple[int, int, Sequence[str]]]
    mentions: Sequence[Row]


def find_disagreements(
    report: ReportFindings, texts: ReportTexts, rolled: Mapping[str, Sequence[str]]
) -> Iterator[Disagreement]:
    """Yield the disagreements of one report; ``rolled`` maps a category to those it is compared as."""
    annotated, predicted = _by_category(report.annotated), _by_category(report.predicted)
    for category in sorted(annotated.keys() | predicted.keys()):
        kind = _kind(annotated.get(category, []), predicted.get(category, []))
        if kind is None:
            continue
        mentions = [m for m in texts.mentions if category in rolled.get(m["category"], (m["category"],))]
        yield Disagreement(
            report.report_id,
            kind,
            category,
            _in_words(annotated.get(category, [])),
            _in_words(predicted.get(category, [])),
            _phenomena(mentions, texts),
            max((m["confidence"] or 0.0 for m in mentions), default=0.0),
            tuple(_passages(mentions, texts)),
        )


def _by_category(atoms: Sequence[Atom]) -> dict[str, list[Atom]]:
    found: dict[str, list[Atom]] = {}
    for atom in atoms:
        found.setdefault(atom.category, []).append(atom)
    return found


def _kind(annotated: Sequence[Atom], predicted: Sequence[Atom]) -> str | None:
    if not predicted:
        return "missing"
    if not annotated:
        return "added"
    for kind, slot in (("side", "sides"), ("region", "regions")):
        if {x for a in annotated for x in getattr(a, slot)} != {x for a in predicted for x in getattr(a, slot)}:
            return kind
    return "severity" if {a.severity for a in annotated} != {a.severity for a in predicted} else None


def _in_words(atoms: Sequence[Atom]) -> str:
    parts = []
    for atom in atoms:
        side = "bilateral" if len(atom.sides) > 1 else "".join(atom.sides)
        words = [atom.severity or "", side, " ".join(sorted(atom.sites))]
        parts.append(" ".join(word.replace("_", " ") for word in words if word) or "stated")
    return "; ".join(parts) or "–"


def _phenomena(mentions: Sequence[Row], texts: ReportTexts) -> tuple[str, ...]:
    found = {f"hedge: {m['hedge']}" for m in mentions if m["hedge"]}
    found |= {f"certainty: {m['certainty']}" for m in mentions if m["certainty"] != "present"}
    spans = [_span(mention) for mention in mentions]
    for start, end, doubts in texts.sentences:
        if any(start <= at < end for at, _ in spans):
            found |= {f"doubt: {doubt}" for doubt in doubts}
    return tuple(sorted(found)) or (("plain statement",) if mentions else ("no mention found",))


def _span(mention: Row) -> tuple[int, int]:
    return next((e["start"], e["end"]) for e in mention["evidence"] if e["slot"] == "mention")


def _passages(mentions: Sequence[Row], texts: ReportTexts) -> Iterator[Passage]:
    """Yield the sentences that hold the mentions with their evidence marked; all sentences where there is none."""
    for start, end, _ in texts.sentences:
        marks = sorted(
            {
                (e["start"] - start, e["end"] - start, str(e["slot"]))
                for mention in mentions
                for e in mention["evidence"]
                if start <= e["start"] and e["end"] <= end
            }
        )
        if marks or not mentions:
            yield Passage(texts.text[start:end], tuple(_apart(marks)))


def _apart(marks: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Leave out marks that overlap a more telling one, since a page cannot show both: the finding's own words first."""
    kept: list[tuple[int, int, str]] = []
    for start, end, slot in sorted(marks, key=lambda mark: (mark[2] != "mention", mark[0] - mark[1])):
        if all(end <= other[0] or start >= other[1] for other in kept):
            kept.append((start, end, slot))
    return sorted(kept)
