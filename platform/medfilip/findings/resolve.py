"""Mentions of one report → findings of its study: a pure function with a stated order of precedence.

Within a category, mentions that can speak of one and the same thing fall together: their sides agree (or one of them
names none, or one names both), and their sites share a region (or one of them names none). The most specific mention
founds a finding; a general one joins the finding it fits best.

Of the mentions that fall together, in this order: a definite statement is believed over a hedged one, an addendum over
the impression and that over the findings section, a present over an absent one. Slots the leading mention leaves empty
are filled from those that agree with it. Contradictions are kept and flagged, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from medfilip.core.ids import hash64
from medfilip.findings.finding import Certainty, Laterality
from medfilip.findings.ontology import Ontology, load_ontology

Row: TypeAlias = Mapping[str, Any]

_SECTION_RANK = {"addendum": 0, "impression": 1, "findings": 2}
_CERTAINTY_RANK = {Certainty.PRESENT: 0, Certainty.ABSENT: 1, Certainty.UNCERTAIN: 2}
_REPEATED_ODDS = 3.0
_SINGLE_SLOTS = ("severity", "size", "size_mm", "count", "change", "chronicity", "position")
LIST_SLOTS = ("sites", "patterns")


@dataclass(slots=True)
class _Group:
    """Mentions that speak of one thing."""

    side: str | None
    regions: frozenset[str]
    mentions: list[Row] = field(default_factory=list)

    def fit(self, side: str | None, regions: frozenset[str]) -> int:
        """How well a mention fits: 0 not at all, more for a side and a region in common."""
        sides_agree = side == self.side
        if not sides_agree and None not in (side, self.side) and Laterality.BILATERAL not in (side, self.side):
            return 0
        shared = bool(regions & self.regions)
        if regions and self.regions and not shared:
            return 0
        return 1 + 2 * sides_agree + shared

    def add(self, mention: Row, side: str | None, regions: frozenset[str]) -> None:
        self.mentions.append(mention)
        self.regions |= regions
        if mention["certainty"] == Certainty.ABSENT and self.mentions[0]["certainty"] != Certainty.ABSENT:
            return
        self.side = side if self.side is None or side == Laterality.BILATERAL else self.side


def resolve_report(mentions: Sequence[Row], ontology: Ontology | None = None) -> list[dict[str, Any]]:
    """Resolve the mentions of one report (rows of ``mentions``) into rows of ``resolved_findings``."""
    known = ontology or load_ontology()
    by_category: dict[str, list[Row]] = {}
    for mention in mentions:
        by_category.setdefault(mention["category"], []).append(mention)
    resolved: list[dict[str, Any]] = []
    for category in sorted(by_category):
        for number, group in enumerate(_groups(by_category[category], known)):
            resolved.append(_resolve_group(category, number, group))
    return resolved


def _groups(mentions: list[Row], ontology: Ontology) -> list[_Group]:
    groups: list[_Group] = []
    for mention in sorted(mentions, key=_specificity):
        side, regions = mention["laterality"], ontology.regions(mention["sites"] or ())
        open_groups = [group for group in groups if not any(_split_from(mention, other) for other in group.mentions)]
        best = max(open_groups, key=lambda group: group.fit(side, regions), default=None)
        if best is None or not best.fit(side, regions):
            best = _Group(side, frozenset())
            groups.append(best)
        best.add(mention, side, regions)
    return groups


def _split_from(mention: Row, other: Row) -> bool:
    """Whether two mentions are the same words of a sentence, stated of two places: they are two findings."""
    return (
        mention.get("sentence_id") == other.get("sentence_id")
        and mention["evidence"][0] == other["evidence"][0]
        and mention["certainty"] == other["certainty"]
    )


def _specificity(mention: Row) -> tuple[bool, bool, bool, int]:
    """Order of founding: stated before denied, with a side before without, with a site before without."""
    return (
        mention["certainty"] == Certainty.ABSENT,
        mention["laterality"] is None,
        not mention["sites"],
        mention["mention_id"],
    )


def _resolve_group(category: str, number: int, group: _Group) -> dict[str, Any]:
    ranked = sorted(group.mentions, key=_precedence)
    leading = ranked[0]
    agreeing = [mention for mention in ranked if mention["certainty"] == leading["certainty"]]
    stated = {mention["certainty"] for mention in ranked}
    return {
        "finding_id": hash64(leading["report_id"], category, str(number)),
        "study_id": leading["study_id"],
        "report_id": leading["report_id"],
        "category": category,
        "certainty": leading["certainty"],
        "hedge": leading["hedge"],
        "laterality": group.side,
        **{slot: next((m[slot] for m in agreeing if m[slot] is not None), None) for slot in _SINGLE_SLOTS},
        **{slot: list(dict.fromkeys(v for m in agreeing for v in m[slot] or ())) for slot in LIST_SLOTS},
        "confidence": _confidence(leading["confidence"], len(agreeing)),
        "mention_ids": sorted(mention["mention_id"] for mention in ranked),
        "conflict": {Certainty.PRESENT, Certainty.ABSENT} <= stated,
    }


def _confidence(confidence: float | None, statements: int) -> float | None:
    """Raise the confidence of a finding that is stated again.

    Findings that a report states twice agree with annotators in 97 %, those it states once in 92 % (Indiana University
    collection): odds about three times as high, whatever they were.
    """
    if confidence is None or statements < 2:
        return confidence
    return confidence * _REPEATED_ODDS / (1 - confidence + confidence * _REPEATED_ODDS)


def _precedence(mention: Row) -> tuple[int, int, int, int]:
    definite = 0 if mention["certainty"] != Certainty.UNCERTAIN else 1
    return (
        definite,
        _SECTION_RANK.get(mention["section"], 3),
        _CERTAINTY_RANK[Certainty(mention["certainty"])],
        mention["mention_id"],
    )
