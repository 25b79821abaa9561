"""Mentions of a sentence → rows with evidence spans: special categories, places kept apart, repetitions folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medfilip.extraction.engine import FindingRow
from medfilip.extraction.mention import Mention, Place
from medfilip.extraction.words import is_plural, token_starts
from medfilip.findings.finding import Certainty, Finding, Laterality
from medfilip.findings.ontology import Ontology

GENERIC_SITES = frozenset(("lung", "chest"))
_ZONES = frozenset(("upper_zone", "mid_zone", "lower_zone", "central"))
_SLOTS = ("hedge", "severity", "size", "size_mm", "count", "change", "chronicity", "position")
_EMPTY: FindingRow = dict.fromkeys(Finding.model_fields)
Parts = list[tuple[list[str], list[str]]]


class RowWriter:
    """Writes mentions as rows with the keys of `medfilip.storage.schemas.FINDING`."""

    def __init__(
        self,
        ontology: Ontology,
        refinements: Mapping[str, Mapping[str, str]],
        splits: Mapping[str, Mapping[str, str]],
        sided_sites: Mapping[str, str],
        paired_findings: frozenset[str],
    ) -> None:
        self._region = {site: entry.region for site, entry in ontology.sites.items()}
        self._hidden = {c.id: GENERIC_SITES | set(c.implied_sites) for c in ontology.categories.values()}
        self._refinements = refinements
        self._splits = splits
        self._sided_sites = sided_sites
        self._paired_findings = paired_findings

    def write(self, mentions: Sequence[Mention], text: str, words: Sequence[str]) -> list[FindingRow]:
        """Return the rows of a sentence; spans are offsets into ``text``."""
        starts = token_starts(text, words)
        rows: list[FindingRow] = []
        for mention in mentions:
            if len(mention.degrees) > 1 and len(mention.places) > 1:
                shared = self._gapped(mention, words, starts)
                if shared:
                    rows += shared
                    continue
            for sides, sites in self._stated_parts(mention):
                row = self._row(mention, sides, sites, words, starts)
                rows.append(row)
                if row["category"] in self._splits:
                    for pattern, other in self._splits[row["category"]].items():
                        if pattern in row["patterns"]:
                            rows.append({**row, "category": other, "patterns": [pattern]})
        return _folded(rows) if len(rows) > 1 else rows

    def _gapped(self, mention: Mention, words: Sequence[str], starts: Sequence[int]) -> list[FindingRow]:
        """Return the rows of findings that share a noun: "small right and moderate left pleural effusions"."""
        first, second = mention.places[0], mention.places[-1]
        if not (second.end <= mention.start and first.sides and second.sides):
            return []
        left = [degree for degree in mention.degrees if degree[3] <= first.start]
        right = [degree for degree in mention.degrees if first.end <= degree[2] and degree[3] <= second.start]
        if not left or not right or first.sides == second.sides:
            return []
        rows = []
        for place, (slot, value, start, end) in ((first, left[-1]), (second, right[-1])):
            row = self._row(mention, place.sides, place.sites, words, starts)
            row["evidence"] = [_span("mention", mention.start, mention.end, words, starts)]
            row["evidence"] += [_span(*span, words, starts) for span in (*place.spans, (slot, start, end))]
            rows.append(row | {"severity": None, "size": None, slot: value})
        return rows

    def _row(
        self, mention: Mention, sides: list[str], sites: list[str], words: Sequence[str], starts: Sequence[int]
    ) -> FindingRow:
        category = mention.category
        side = ("bilateral" if len(set(sides)) > 1 else sides[0]) if sides else None
        rules = self._refinements.get(category)
        if rules and (side or sites or mention.patterns):
            keys = (*sites, *mention.patterns, side or "")
            category = next((rules[key] for key in keys if key in rules), category)
        if mention.bearer and mention.certainty == Certainty.ABSENT and not _says_side(mention):
            side = None  # "the hila are normal" is no finding on both sides
        elif side is None:
            side = self._implied_side(mention, category, sites, words)
        if sites:
            hidden = self._hidden.get(category, GENERIC_SITES)
            sites = [site for site in sites if site not in hidden]
        evidence = [_span("mention", mention.start, mention.end, words, starts)]
        if mention.evidence:
            evidence += [_span(slot, start, end, words, starts) for slot, start, end in mention.evidence]
        row = _EMPTY.copy()
        row["category"] = category
        row["certainty"] = mention.certainty
        row["laterality"] = side
        row["sites"] = sites
        row["patterns"] = mention.patterns
        row["alignment"] = mention.alignment
        row["evidence"] = evidence
        if mention.evidence:  # every other slot comes with its evidence
            for slot in _SLOTS:
                row[slot] = getattr(mention, slot)
        return row

    def _implied_side(self, mention: Mention, category: str, sites: Sequence[str], words: Sequence[str]) -> str | None:
        """Return the side that anatomy or number implies: the lingula is left, "effusions" are on both sides."""
        for site in sites:
            if site in self._sided_sites:
                return self._sided_sites[site]
        plural = category in self._paired_findings and is_plural(words[mention.end - 1])
        return Laterality.BILATERAL if plural and mention.certainty == Certainty.PRESENT else None

    def _stated_parts(self, mention: Mention) -> Parts:
        """Return the parts of a mention's places, less those that only name what the category itself implies."""
        parts = self._parts(mention.places)
        if len(parts) > 1:
            hidden = self._hidden.get(mention.category, GENERIC_SITES)
            return [part for part in parts if not hidden.issuperset(part[1]) or not part[1]] or parts[:1]
        return parts

    def _parts(self, places: Sequence[Place]) -> Parts:
        """Return one (sides, sites) for each of several coordinated places: "in the left apex and the right base"."""
        if not places:
            return [([], [])]
        if len(places) == 1 and len(places[0].sites) < 2:
            return [(places[0].sides, places[0].sites)]
        parts: Parts = []
        for place in _with_their_sides(places):
            for sides, sites in self._by_zone(place):
                apart = bool(parts and sites and parts[-1][1]) and (place.joined or sites is not place.sites)
                if parts and not apart:
                    parts[-1][0].extend(sides)
                    parts[-1][1].extend(site for site in sites if site not in parts[-1][1])
                else:
                    # "Right middle and lower lobe": the side of the first place holds for the next one too.
                    shared = parts[-1][0] if parts and not place.midline else ()
                    parts.append((list(sides or shared), list(dict.fromkeys(sites))))
        return parts

    def _by_zone(self, place: Place) -> Parts:
        """Part a place that spans several zones of the lung: "upper and lower lobe"."""
        region = self._region
        zones = list(dict.fromkeys(region[site] for site in place.sites if region[site] in _ZONES))
        if len(zones) < 2:
            return [(place.sides, place.sites)]
        rest = [site for site in place.sites if region[site] not in _ZONES]
        return [(place.sides, [s for s in place.sites if region[s] == zone] + rest) for zone in zones]


def _with_their_sides(places: Sequence[Place]) -> list[Place]:
    """Join a side to the site right behind it, which is a part of the finding's own words: "left [hilar nodes]"."""
    joined: list[Place] = []
    for place in places:
        before = joined[-1] if joined else None
        if before is not None and before.sides and not before.sites and not place.sides and before.end == place.start:
            whole = Place(before.start, place.end, joined=before.joined)
            whole.sides, whole.sites = before.sides, place.sites
            joined[-1] = whole
        else:
            joined.append(place)
    return joined


def _says_side(mention: Mention) -> bool:
    return any(slot == "laterality" for slot, _, _ in mention.evidence)


def _span(slot: str, start: int, end: int, words: Sequence[str], starts: Sequence[int]) -> dict[str, Any]:
    return {"slot": slot, "start": starts[start], "end": starts[end - 1] + len(words[end - 1])}


def _folded(rows: list[FindingRow]) -> list[FindingRow]:
    """Fold repeated statements of one finding within a sentence into one, with all the evidence."""
    if len({row["category"] for row in rows}) == len(rows):
        return rows
    folded: dict[tuple[Any, ...], FindingRow] = {}
    for row in rows:
        key = tuple(
            tuple(v) if isinstance(v, list) else v for k, v in row.items() if k not in ("evidence", "alignment")
        )
        if key in folded:
            folded[key]["evidence"] += row["evidence"]
        else:
            folded[key] = row
    return list(folded.values())


__all__ = ["GENERIC_SITES", "RowWriter"]
