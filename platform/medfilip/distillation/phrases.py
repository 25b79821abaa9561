"""Noun phrases of findings: every term of the ontology with qualifiers before and behind it, and what they say.

A phrase is a list of pieces, words with the slots they fill; values go into the claim that the phrase is about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeAlias

from medfilip.distillation.grammar import STATES, Grammar
from medfilip.extraction.engine import FindingRow
from medfilip.extraction.lexicon_data import LexiconData
from medfilip.findings.finding import Alignment, Laterality
from medfilip.findings.ontology import Ontology
from medfilip.phantom.dice import Dice

Piece: TypeAlias = tuple[str, tuple[str, ...]]
"""Words, and the slots they are evidence of."""

SINGLE_SLOTS = ("hedge", "severity", "size", "size_mm", "count", "laterality", "change", "chronicity", "position")

_IRREGULAR = {"apex": "apices", "hilum": "hila", "base": "bases", "bulla": "bullae", "metastasis": "metastases"}
_ADJECTIVE_ENDINGS = ("ed", "ic", "ous", "cent", "tive", "al", "ar")
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


@dataclass
class Claim:
    """What a sentence says of one category: slots fill as words are chosen."""

    category: str
    state: str
    alignment: Alignment = Alignment.EXACT
    values: dict[str, Any] = field(default_factory=dict)
    sites: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    plural: bool = False

    def row(self, evidence: list[dict[str, object]]) -> FindingRow:
        """Return the claim as a finding."""
        certainty, hedge, change = STATES[self.state]
        values = dict.fromkeys(SINGLE_SLOTS) | {"hedge": hedge, "change": change} | self.values
        return {
            "category": self.category,
            "certainty": certainty,
            **values,
            "sites": self.sites,
            "patterns": self.patterns,
            "alignment": self.alignment,
            "evidence": evidence,
            "confidence": None,
            "suggestion": None,
        }


class Stock:
    """Words of an ontology and a lexicon, sorted for drawing."""

    def __init__(self, ontology: Ontology, lexicon: LexiconData, grammar: Grammar) -> None:
        grammar.check(ontology)
        self.ontology, self.lexicon, self.grammar = ontology, lexicon, grammar
        self.nouns = {c.id: tuple(t for t in c.terms if not is_adjective(t)) for c in ontology.categories.values()}
        self.adjectives = {c.id: tuple(t for t in c.terms if is_adjective(t)) for c in ontology.categories.values()}
        self.nouns = {name: terms or ontology.categories[name].terms for name, terms in self.nouns.items()}
        self.devices = tuple(c.id for c in ontology.categories.values() if c.group in ("device", "postoperative"))
        self.names = tuple(ontology.categories)
        self._cumulative = list(accumulate(grammar.weights.get(name, 1.0) for name in self.names))
        self.changes = {name: words for name, words in lexicon.changes.items() if name != "resolved"}

    def category(self, dice: Dice) -> str:
        """Draw a category, common ones more often."""
        from bisect import bisect

        return self.names[bisect(self._cumulative, dice.throw() * self._cumulative[-1])]

    @cached_property
    def short_places(self) -> dict[str, tuple[tuple[str, Laterality | None], ...]]:
        """One-word places ("rll", "bibasilar") of each site."""
        found: dict[str, list[tuple[str, Laterality | None]]] = {}
        for words, place in self.lexicon.places.items():
            if " " not in words and len(place.sites) == 1 and place.side is not None:
                found.setdefault(place.sites[0], []).append((words, place.side))
        return {site: tuple(options) for site, options in found.items()}


def is_adjective(term: str) -> bool:
    """Whether a term of the ontology is no noun, by its form: "hyperinflated", "scoliotic", "tortuous"."""
    return (" " not in term and term.endswith(_ADJECTIVE_ENDINGS) and term != "chest") or term == "under tension"


def plural(words: str) -> str:
    """Return the plural of a noun phrase by its last word."""
    *lead, last = words.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last = f"{last}es" if last.endswith(("s", "x", "ch", "sh")) else f"{last}s"
    return " ".join((*lead, last))


class Phrases:
    """Draws phrases."""

    def __init__(self, stock: Stock, dice: Dice) -> None:
        self._stock, self._dice = stock, dice
        self._grammar, self._ontology = stock.grammar, stock.ontology

    def finding(self, claim: Claim, *, bare: bool, detail: float = 1.0) -> list[Piece]:
        """Return a noun phrase; ``bare`` leaves side, place and change out, ``detail`` scales how much is said."""
        dice, stated = self._dice, claim.state not in ("absent", "none", "resolved")
        share = detail * (1.0 if stated else 0.3)
        before: list[Piece] = []
        behind: list[Piece] = []
        term = self._term(claim)
        if stated and not bare and "change" not in claim.values and dice.chance(0.13 * share):
            before += self.change_word(claim)
        if claim.category in self._grammar.counted and claim.plural and dice.chance(0.25 * share):
            number = dice.number(2, 6)
            claim.values["count"] = number
            before.append((_NUMBERS[number], ("count",)))
        before += self._age(claim, share) + self._degree(claim, share)
        before += self._pattern(claim, share if claim.state != "absent" else 0.8)
        if claim.category in self._grammar.measured and stated and dice.chance(0.2 * share):
            measure = self.measure(claim)
            if dice.chance(0.5):
                before.append(measure)
            else:
                lead = dice.favour(("measuring", "measuring approximately", "of", "measuring up to", "of about"))
                behind += [(lead, ()), measure]
        if not bare and dice.chance(0.55 * share):
            if dice.chance(0.5):
                before += self.place_before(claim)
            else:
                behind = self.place_behind(claim) + behind
        if dice.chance(0.1) and claim.category not in self._stock.devices:
            before.append((dice.favour(self._grammar.words["lead"]), ()))
        if stated and not claim.plural and dice.chance(0.12):
            article = "an" if (before or [term])[0][0][0] in "aeiou8" else "a"
            before.insert(0, (dice.pick((article, article, "the")), ()))
        return [*before, term, *behind]

    def _term(self, claim: Claim) -> Piece:
        dice, stock = self._dice, self._stock
        nouns = stock.nouns[claim.category]
        pool = stock.adjectives[claim.category] if dice.chance(0.05) else ()
        term = dice.favour(nouns) if dice.chance(0.7) else dice.pick(pool or nouns)
        head = term.rsplit(" ", 1)[-1]
        if head in self._grammar.plural_heads and dice.chance(0.4):
            term, claim.plural = plural(term), True
            if claim.category in stock.lexicon.paired_findings and claim.state != "absent":
                claim.values["laterality"] = Laterality.BILATERAL
        if dice.chance(0.12) and "-" not in term:
            for joint in ("air space", "port a cath", "x ray", "band like", "post surgical", "pleural parenchymal"):
                term = term.replace(joint, joint.replace(" ", "-"))
        return term, ("mention",)

    def _age(self, claim: Claim, share: float) -> list[Piece]:
        dice = self._dice
        likely = 0.25 * share if claim.category in self._grammar.aged else 0.01 * share
        if claim.state == "absent":
            likely = 0.3 if "fracture" in claim.category else 0.04
        if not dice.chance(likely):
            return []
        value = dice.pick(tuple(self._stock.lexicon.chronicity)) if claim.state != "absent" else "acute"
        claim.values["chronicity"] = value
        words = self._stock.lexicon.chronicity[value]
        return [(dice.favour(words) if claim.state != "absent" else "acute", ("chronicity",))]

    def _degree(self, claim: Claim, share: float) -> list[Piece]:
        dice = self._dice
        if claim.category in self._grammar.sized and dice.chance(0.35 * share):
            slot, options = "size", self._ontology.sizes
        elif dice.chance(0.22 * share):
            slot, options = "severity", self._ontology.severities
        else:
            return []
        value = dice.pick(tuple(options))
        words = dice.favour(options[value])
        if words.endswith((" of", " of normal")) and not dice.chance(0.2):
            words = options[value][0]
        claim.values[slot] = value
        return [(words, (slot,))]

    def _pattern(self, claim: Claim, share: float) -> list[Piece]:
        dice = self._dice
        if claim.category not in self._grammar.patterned or not dice.chance(0.25 * share):
            return []
        if claim.state == "absent":
            value, words = "focal", "focal"
        else:
            value = dice.favour(tuple(self._ontology.patterns))
            words = dice.favour(self._ontology.patterns[value])
        claim.patterns.append(value)
        return [(words, ("pattern",))]

    def measure(self, claim: Claim) -> Piece:
        """Return a measured size and put it into the claim: millimetres, centimetres, two diameters."""
        dice = self._dice
        tenths = dice.number(3, 60)
        kind = dice.throw()
        if kind < 0.45:
            words, value = f"{tenths} mm", float(tenths)
        elif kind < 0.8:
            words, value = f"{tenths / 10:.1f} cm", float(tenths)
        elif kind < 0.9:
            words, value = f"{dice.number(1, 7)} cm", 0.0
            value = float(words[0]) * 10
        else:
            other = dice.number(2, tenths + 1)
            words, value = f"{tenths} x {other} mm", float(max(tenths, other))
        claim.values["size_mm"] = value
        return words, ("size_mm",)

    def change_word(self, claim: Claim) -> list[Piece]:
        """Return words for a change and put it into the claim."""
        dice, changes = self._dice, self._stock.changes
        value = claim.values.setdefault("change", dice.favour(("unchanged", "increased", "decreased", "new")))
        return [(dice.favour(changes[value]) if dice.chance(0.6) else dice.pick(changes[value]), ("change",))]

    def place_before(self, claim: Claim) -> list[Piece]:
        """Return side and site in front of a noun: "left", "left basilar", "bibasilar", "rll"."""
        dice, family = self._dice, self._grammar.family_of.get(claim.category)
        if family is None:
            return []
        side = self._side(claim)
        if not family.sites or dice.chance(0.4):
            self._put(claim, side, None)
            return [(_side_words(side, dice), ("laterality",))] if side else []
        site = dice.favour(family.sites)
        shorts = self._stock.short_places.get(site, ())
        if shorts and dice.chance(0.3):
            words, short_side = dice.pick(shorts)
            self._put(claim, short_side, site)
            return [(words, ("laterality", "site"))]
        adjectives = [name for name in self._ontology.sites[site].synonyms if is_adjective(name)]
        nouns = [name for name in self._ontology.sites[site].synonyms if not is_adjective(name)]
        pool = adjectives if adjectives and dice.chance(0.5) else (nouns or adjectives)
        side = self._sided(site, side)
        self._put(claim, side, site)
        lead: list[Piece] = [(_side_words(side, dice), ("laterality",))] if side else []
        return [*lead, (dice.favour(pool), ("site",))]

    def place_behind(self, claim: Claim) -> list[Piece]:
        """Return an adverbial of place: "in the left lower lobe", "at both bases", "on the right", "bilaterally"."""
        dice, family = self._dice, self._grammar.family_of.get(claim.category)
        if family is None:
            return []
        side = self._side(claim) or Laterality.LEFT
        if not family.sites or dice.chance(0.25):
            self._put(claim, side, None)
            if side is Laterality.BILATERAL:
                words = (
                    "bilaterally",
                    "on both sides",
                    "bilaterally",
                    ", left greater than right",
                    ", right greater than left",
                )
                return [(dice.pick(words), ("laterality",))]
            if dice.chance(0.3) and family.sites:
                return [("in the", ()), (str(side), ("laterality",)), (dice.pick(("lung", "hemithorax")), ())]
            return [("on the", ()), (str(side), ("laterality",)), *([("side", ())] if dice.chance(0.15) else [])]
        return self._site_behind(claim, dice.favour(family.sites), side)

    def _site_behind(self, claim: Claim, site: str, side: Laterality) -> list[Piece]:
        dice = self._dice
        nouns = [name for name in self._ontology.sites[site].synonyms if not is_adjective(name)]
        words = dice.favour(nouns or self._ontology.sites[site].synonyms)
        at = dice.favour(("in", "at", "within", "of", "involving", "overlying", "over", "projecting over"))
        given = self._sided(site, side if dice.chance(0.75) else None)
        paired = site in self._stock.lexicon.paired_sites
        if given is Laterality.BILATERAL and paired:
            self._put(claim, given, site)
            both = dice.pick(("both", "both", "the bilateral"))
            return [(at, ()), (both, ("laterality",)), (plural(words), ("site",))]
        self._put(claim, given, site)
        side_piece: list[Piece] = [(str(given), ("laterality",))] if given else []
        aspect: list[Piece] = [(dice.favour(self._grammar.words["aspect"]), ())] if dice.chance(0.08) else []
        if dice.chance(0.5):
            return [(f"{at} the", ()), *aspect, *side_piece, (words, ("site",))]
        return [(f"{at} the", ()), *side_piece, *aspect, (words, ("site",))]

    def _side(self, claim: Claim) -> Laterality | None:
        dice, known = self._dice, claim.values.get("laterality")
        if known is not None:
            return Laterality.BILATERAL if dice.chance(0.7) else None
        family = self._grammar.family_of[claim.category]
        if family.categories[0] in ("degenerative_spine",):
            return None
        return dice.favour((Laterality.LEFT, Laterality.RIGHT, Laterality.BILATERAL)) if dice.chance(0.85) else None

    def _sided(self, site: str, side: Laterality | None) -> Laterality | None:
        """Return the side that fits a site: none in the midline, its own where it exists on one side only."""
        lexicon = self._stock.lexicon
        if site in lexicon.midline_sites or site.endswith("spine"):
            return None
        if site in lexicon.sided_sites:
            return Laterality(lexicon.sided_sites[site]) if side else None
        return side

    def _put(self, claim: Claim, side: Laterality | None, site: str | None) -> None:
        if side is not None:
            claim.values["laterality"] = side
        elif site in self._stock.lexicon.sided_sites:
            claim.values["laterality"] = self._stock.lexicon.sided_sites[site]
        implied = self._ontology.categories[claim.category].implied_sites
        if site is not None and site not in implied and site not in claim.sites:
            claim.sites.append(site)

    def tip(self, claim: Claim) -> list[Piece]:
        """Return where the tip of a device is, and put it into the claim."""
        dice = self._dice
        value = dice.favour(self._grammar.tips[claim.category])
        words = dice.favour(self._stock.lexicon.positions[value])
        claim.values["position"] = value
        if value == "above_carina":
            lead = f"{dice.number(2, 8)}" if dice.chance(0.4) else f"{dice.number(15, 80) / 10:.1f}"
            return [(f"{lead}", ()), ("cm above the carina", ("position",))]
        if value == "stomach" and words.split()[0] in ("below", "beneath", "under"):
            return [(words, ("position",))]
        at = dice.favour(("in the", "at the", "over the", "projecting over the", "within the", "near the"))
        return [(at, ()), (words, ("position",))]


def _side_words(side: Laterality, dice: Dice) -> str:
    if side is Laterality.BILATERAL:
        return dice.favour(("bilateral", "bilateral", "both"))
    return f"{side}-sided" if dice.chance(0.12) else str(side)
