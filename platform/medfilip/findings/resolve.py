"""Mentions of one report → findings of its study: a pure function with a stated order of precedence.

Mentions fall together by (category, side); a mention without a side joins the sided ones of its category. Within a
group the impression is believed over the findings section, a definite statement over a hedged one, and a present over
an absent one of the same weight; contradictions are kept and flagged, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medfilip.core.ids import hash64
from medfilip.findings.finding import Certainty

_SECTION_RANK = {"impression": 0, "findings": 1}
_CERTAINTY_RANK = {Certainty.PRESENT: 0, Certainty.ABSENT: 1, Certainty.UNCERTAIN: 2}
_SINGLE_SLOTS = ("severity", "size", "size_mm", "count", "change", "chronicity", "position")
_LIST_SLOTS = ("sites", "patterns")


def resolve_report(mentions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Resolve the mentions of one report (rows of ``mentions``) into rows of ``resolved_findings``."""
    groups = _group(mentions)
    return [_resolve_group(category, side, groups[category, side]) for category, side in sorted(groups, key=str)]


def _group(mentions: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str | None], list[Mapping[str, Any]]]:
    sides: dict[str, set[str]] = {}
    for mention in mentions:
        if mention["laterality"] is not None and mention["certainty"] != Certainty.ABSENT:
            sides.setdefault(mention["category"], set()).add(mention["laterality"])
    groups: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for mention in mentions:
        side = _side(mention, sides.get(mention["category"], set()))
        groups.setdefault((mention["category"], side), []).append(mention)
    return groups


def _side(mention: Mapping[str, Any], stated: set[str]) -> str | None:
    """Return the side under which a mention is filed, given the sides on which its category is said to be."""
    side: str | None = mention["laterality"]
    both = "bilateral" in stated or stated >= {"left", "right"}
    if both and (side is None or side in stated or mention["certainty"] != Certainty.ABSENT):
        # "Bilateral effusions, left greater than right": one finding on both sides.
        return "bilateral"
    if side is None and len(stated) == 1:
        return next(iter(stated))
    return side


def _resolve_group(category: str, side: str | None, mentions: list[Mapping[str, Any]]) -> dict[str, Any]:
    ranked = sorted(mentions, key=_precedence)
    leading = ranked[0]
    agreeing = [mention for mention in ranked if mention["certainty"] == leading["certainty"]]
    stated = {mention["certainty"] for mention in ranked}
    return {
        "finding_id": hash64(leading["report_id"], category, side or ""),
        "study_id": leading["study_id"],
        "report_id": leading["report_id"],
        "category": category,
        "certainty": leading["certainty"],
        "hedge": leading["hedge"],
        "laterality": side,
        **{slot: next((m[slot] for m in agreeing if m[slot] is not None), None) for slot in _SINGLE_SLOTS},
        **{slot: list(dict.fromkeys(v for m in agreeing for v in m[slot] or ())) for slot in _LIST_SLOTS},
        "confidence": leading["confidence"],
        "mention_ids": sorted(mention["mention_id"] for mention in ranked),
        "conflict": {Certainty.PRESENT, Certainty.ABSENT} <= stated,
    }


def _precedence(mention: Mapping[str, Any]) -> tuple[int, int, int, int]:
    definite = 0 if mention["certainty"] != Certainty.UNCERTAIN else 1
    return (
        definite,
        _SECTION_RANK.get(mention["section"], 2),
        _CERTAINTY_RANK[Certainty(mention["certainty"])],
        mention["mention_id"],
    )
