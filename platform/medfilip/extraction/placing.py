"""Where a finding is: sides and sites joined into places, and places given to findings.

A place in front of a noun is the noun's, one behind a preposition belongs to what stands before it together with
everything coordinated with that ("opacity and atelectasis in the right lower lobe"), and a diagnosis takes over the
place of the observation it explains ("opacity in the left base, likely atelectasis").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from medfilip.extraction.attachment import (
    BACKWARD_REACH,
    coordinated_after,
    coordinated_before,
    holding,
    is_premodifier,
    joined,
)
from medfilip.extraction.mention import Mention, Place
from medfilip.extraction.parsing import (
    AND,
    BEARER,
    CATEGORY,
    COMMA,
    DETERMINER,
    EXPLANATION,
    FILLER,
    HEDGE,
    NEGATION,
    NUMERALS,
    OR,
    PREPOSITION,
    RELATIVE,
    SIDE,
    SITE,
    STATE,
    TERMINATOR,
    VERB,
    Item,
    Sentence,
    bits,
)
from medfilip.extraction.words import PLACEHOLDER, is_plural

_PLACES = bits(SIDE, SITE)
_PLACE_GAP = 3
_WITHIN_PLACE = frozenset((FILLER, DETERMINER, PREPOSITION, BEARER, AND, OR))
_LEVELS = (
    {"upper": "upper_lobe", "mid": "middle_lobe", "middle": "middle_lobe", "lower": "lower_lobe"},
    {"upper": "upper_lung", "mid": "mid_lung", "middle": "mid_lung", "lower": "lower_lung"},
)
"""Words for a level of the lung, and the sites they make with "lobe" and with "lung" or "zone"."""
_GOES_ON = frozenset((BEARER, SITE, CATEGORY, STATE, VERB))
_TIES = frozenset((HEDGE, EXPLANATION))
_TAKING_UP = RELATIVE | {"this", "these", "it", "they"}
"""Take up the observation before them: "opacity in the left base, which may represent atelectasis"."""
_EQUATIONS = frozenset(("represents", "represent", "reflects", "reflect", "suggests"))


@dataclass(frozen=True, slots=True)
class PlaceRules:
    """Which sites come in pairs, stand in the midline or are landmarks, and which findings take over no place."""

    landmarks: frozenset[str]
    paired_sites: frozenset[str]
    midline_sites: frozenset[str]
    sided_sites: Mapping[str, str]
    unplaced: frozenset[str]


def attach_places(sentence: Sentence, mentions: Sequence[Mention], rules: PlaceRules) -> None:
    """Give every place of a sentence to the findings that are there, in place."""
    if not sentence.kinds & _PLACES:
        return
    for place in find_places(sentence, mentions, rules):
        targets = _targets(place, sentence, mentions)
        closest = targets[0] if len(targets) == 1 else min(targets, key=_distance_from(place), default=None)
        for mention in targets:
            if mention is not closest and mention.category in rules.unplaced:
                continue
            if mention.places and place.sites and rules.landmarks.issuperset(place.sites):
                continue
            mention.places.append(place)
            mention.evidence += place.spans
    if len(mentions) > 1:
        _inherit_places(sentence, mentions, rules.unplaced)
    _share_heading(sentence, mentions, rules)


def _share_heading(sentence: Sentence, mentions: Sequence[Mention], rules: PlaceRules) -> None:
    """Give the side of a heading to all findings behind it that have none: "left lung: small effusion, atelectasis"."""
    colon = next((i[2] for i in sentence.items if i[0] == VERB and i[1] == ":"), 0)
    sides = [i for i in sentence.items if i[0] == SIDE and i[3] <= colon]
    if len(sides) != 1:
        return
    _, side, start, end = sides[0]
    for mention in mentions:
        if mention.start < colon or mention.category in rules.unplaced or any(p.sides for p in mention.places):
            continue
        place = copy(mention.places[0]) if mention.places else Place(start, end)  # another finding may be there too
        place.sides = [side]
        mention.places = [place, *mention.places[1:]]
        mention.evidence.append(("laterality", start, end))


def _distance_from(place: Place) -> Callable[[Mention], int]:
    def distance(mention: Mention) -> int:
        return abs(mention.start - place.start)

    return distance


def find_places(sentence: Sentence, mentions: Sequence[Mention], rules: PlaceRules) -> list[Place]:
    """Join sides and sites that stand together into places; the plural of a paired site means both sides."""
    places: list[Place] = []
    current: Place | None = None
    for item in sentence.items:
        kind, value, start, end = item
        if kind in (SIDE, SITE):
            if current is None or not _continues(current, item, sentence, mentions, rules):
                beside = current is not None and _gap(current.end, start, sentence) <= _PLACE_GAP
                current = Place(start, end, joined=beside)
                places.append(current)
            if kind == SIDE:
                current.sides.append(value)
                current.spans.append(("laterality", start, end))
            else:
                current.sites.append(value)
                current.spans.append(("site", start, end))
                if len(current.sites) == 1:
                    current.midline = value in rules.midline_sites or value in rules.sided_sites
                if value in rules.paired_sites and is_plural(sentence.words[end - 1]):
                    current.plural = True
            current.end = max(current.end, end)
        elif current is not None and start >= current.end and kind not in _WITHIN_PLACE:
            current = None
    for number, place in enumerate(places):
        if place.plural and not place.sides:
            place.sides.append("bilateral")
        if place.sides and not place.sites and number + 1 < len(places):
            _share_noun(place, places[number + 1], sentence)
    return places


def _share_noun(place: Place, following: Place, sentence: Sentence) -> None:
    """Give a side the zone whose noun stands behind the next one: "the right upper and left lower lobes"."""
    level = sentence.words[place.end]
    family = next(
        (f for f in _LEVELS if following.joined and f.get(level) and set(f.values()) & {*following.sites}), None
    )
    if family is not None and _listed(place.end + 1, following.start, sentence):
        place.sites.append(family[level])
        place.spans.append(("site", place.end, place.end + 1))
        place.end += 1


def _continues(place: Place, item: Item, sentence: Sentence, mentions: Sequence[Mention], rules: PlaceRules) -> bool:
    """Whether a side or site belongs to the place before it.

    A second side begins a place of its own, and so does what is joined to a site on another level of the body: the
    left of "left hilar and mediastinal nodes", and of "mediastinal and left hilar nodes", is the hilum's, and the right
    of "right middle lobe and lingular opacities" is not the lingula's.
    """
    kind, value, start, _ = item
    last = place.end - 1
    if start <= last:
        return True
    if _gap(place.end, start, sentence) > _PLACE_GAP or (kind == SIDE and place.sides):
        return False
    sided = rules.sided_sites
    other_level = kind == SIDE or (place.sides and value in rules.midline_sites)
    other_side = value in sided and sided[value] not in (*place.sides, *map(sided.get, place.sites))
    if place.sites and (other_level or other_side) and _listed(place.end, start, sentence):
        return False
    # What stands inside a finding's own words is not of one place with what stands outside.
    if any((m.start <= last < m.end) != (m.start <= start < m.end) for m in mentions):
        return False
    return not _leads_on(place, item, sentence, mentions)


def _listed(end: int, start: int, sentence: Sentence) -> bool:
    return any(i[0] in (AND, OR) and end <= i[2] and i[3] <= start for i in sentence.items)


def _gap(end: int, start: int, sentence: Sentence) -> int:
    """Return how many words part two terms, where numbers do not count: "the left 4th and 5th ribs"."""
    gap = start - end
    if gap > _PLACE_GAP:
        gap -= sum(word in NUMERALS for word in sentence.folded[end:start])
    return gap


def _leads_on(place: Place, item: Item, sentence: Sentence, mentions: Sequence[Mention]) -> bool:
    """Whether "and" goes on to the next finding's own place: "atelectasis in the right base and lingular scarring"."""
    if not _listed(place.end, item[2], sentence):
        return False
    behind = any(m.end <= place.start for m in mentions)
    return behind and any(0 <= m.start - item[3] <= 2 and is_premodifier(item[3], m, sentence.items) for m in mentions)


def _targets(place: Place, sentence: Sentence, mentions: Sequence[Mention]) -> Sequence[Mention]:
    start, end = place.start, place.end
    around = holding(start, end, mentions)
    if around:
        return around
    items = sentence.items
    begin, stop = sentence.span(start)
    after = [m for m in mentions if end <= m.start < stop]
    before = [m for m in mentions if begin <= m.start and m.end <= start]
    if after and is_premodifier(end, after[0], items):
        cut_off = bool(before) and _is_cut_off(place, after[0], sentence)
        if not cut_off and not _is_member(place, after[0], sentence):
            return coordinated_after(after, items)
    if before:
        nearest = before[-1].end
        if start - nearest <= BACKWARD_REACH and _is_located(nearest, place, items):
            return coordinated_before(before, items)
    if after and after[0].start - end <= BACKWARD_REACH and _leads_to(place, after[0], items):
        return coordinated_after(after, items)
    return ()


def _is_cut_off(place: Place, mention: Mention, sentence: Sentence) -> bool:
    """Whether a preposition leads to a place, and a comma, "and" or a removed word parts it from what follows.

    "Opacity in the left base, small effusion", "opacity in the left base xxxx effusion".
    """
    if not any(i[0] == PREPOSITION and 0 <= place.start - i[3] <= 1 for i in sentence.items):
        return False
    if any(i[0] == STATE and i[1] == "obscured" and i[2] == mention.start for i in sentence.items):
        return True  # "opacity at the left base obscures the hemidiaphragm"
    if any(i[0] in (COMMA, AND) and place.end <= i[2] and i[3] <= mention.start for i in sentence.items):
        return True
    return any(PLACEHOLDER.fullmatch(word) for word in sentence.words[place.end : mention.start])


def _is_member(place: Place, mention: Mention, sentence: Sentence) -> bool:
    """Whether a place is a noun in a list with the finding behind it: "stable hilar contours, a right port"."""
    if not is_plural(sentence.words[place.end - 1]):
        return False
    return any(i[0] in (COMMA, AND) and place.end <= i[2] and i[3] <= mention.start for i in sentence.items)


def _leads_to(place: Place, mention: Mention, items: Sequence[Item]) -> bool:
    """Whether a place in front of a finding can be its place: a comma parts them only if a preposition led to it.

    "In the left base, there is an opacity" has one; the hila of "stable hilar contours, a right port" are no place.
    """
    between = any(i[0] == COMMA and place.end <= i[2] and i[3] <= mention.start for i in items)
    return not between or any(i[0] == PREPOSITION and i[3] <= place.start for i in items)


def _is_located(end: int, place: Place, items: Sequence[Item]) -> bool:
    """Whether a place behind a finding is the finding's: a preposition leads to it, or nothing parts the two."""
    for kind, _, start, stop in reversed(items):
        if start < end or stop > place.start:
            continue
        if kind == PREPOSITION:
            return True
        if kind in (COMMA, AND):
            # "…enlarged, stable mediastinal contours" goes on with something else; "consolidation, left base" does not.
            later = [i[0] for i in items if i[2] >= place.end]
            if place.joined:
                return not _GOES_ON.intersection(later[:3])
            return bool(place.sides) and not place.plural and not _GOES_ON.intersection(later[:3])
    return True


def _inherit_places(sentence: Sentence, mentions: Sequence[Mention], unplaced: frozenset[str]) -> None:
    """Give a diagnosis the place of the observation it explains."""
    previous = source = mentions[0]
    for mention in mentions[1:]:
        if (
            not mention.places
            and source.places
            and (_explains(previous, mention, sentence) or _shares(previous, mention, sentence))
        ):
            mention.inherited = True
            if mention.category not in unplaced:
                mention.places = [_without(place, source.bearer) for place in source.places]
                mention.evidence += [span for span in source.evidence if span[0] in ("laterality", "site")]
        else:
            source = mention
        previous = mention


def _without(place: Place, bearer: str) -> Place:
    """Return a place without the site that is a part of the observation's own name: a blunted angle is no place."""
    if bearer not in place.sites:
        return place
    kept = Place(place.start, place.end, joined=place.joined)
    kept.sides, kept.sites = place.sides, [site for site in place.sites if site != bearer]
    return kept


def _shares(previous: Mention, mention: Mention, sentence: Sentence) -> bool:
    """Whether a diagnosis stands in one list with another that has taken over a place."""
    return previous.inherited and joined(previous, mention, sentence.items)


def _explains(observation: Mention, diagnosis: Mention, sentence: Sentence) -> bool:
    """Whether a hedge, an explaining word, or a word that was removed from the text, ties two findings."""
    first, last = observation.end, diagnosis.start
    between = [i for i in sentence.items if first <= i[2] and i[3] <= last]
    if any(item[0] == NEGATION or (item[0] == TERMINATOR and item[1] not in _TAKING_UP) for item in between):
        return False
    if any(item[0] in _TIES or item[1] in _EQUATIONS for item in between):
        return True
    if diagnosis.hedge is not None and between and all(item[0] == COMMA for item in between):
        return True  # "opacity in the left base, atelectasis versus infiltrate"
    removed = any(PLACEHOLDER.fullmatch(word) for word in sentence.words[first:last])
    return removed and not any(item[0] == AND for item in between)
