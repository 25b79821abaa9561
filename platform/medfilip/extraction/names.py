"""Names of the ontology as people write them: whatever case, hyphen, plural or spelling of spaces.

Nothing here is fuzzy but `Names.nearest`, whose answer is a suggestion and never a finding.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from medfilip.extraction.lexicon_data import load_lexicon_data
from medfilip.findings.ontology import Ontology

_TOKEN = re.compile(r"[^\W_]+")
_LATIN_PLURALS = {"apices": "apex", "hila": "hilum", "bronchi": "bronchus", "metastases": "metastasis"}
_SURE = 0.9
_LIKELY = 0.5


@lru_cache(maxsize=65_536)
def fold_token(token: str) -> str:
    """Return a token in lower case and the singular."""
    word = token.lower()
    if word in _LATIN_PLURALS:
        return _LATIN_PLURALS[word]
    if len(word) > 4:
        if word.endswith("ies"):
            return word[:-3] + "y"
        if word.endswith("ata"):
            return word[:-2]
        if word.endswith("xes"):
            return word[:-2]
        if word.endswith("s") and not word.endswith(("ss", "is", "us")):
            return word[:-1]
    return word


def tokens(text: str) -> list[tuple[str, int, int]]:
    """Return the folded tokens of a text with their half-open spans."""
    return [(fold_token(match.group()), match.start(), match.end()) for match in _TOKEN.finditer(text)]


def fold(text: str) -> str:
    """Return a text as its folded tokens with single spaces: the key under which equal names meet."""
    return " ".join(token for token, _, _ in tokens(text))


class Names:
    """Every name of an ontology's entries, by folded form."""

    def __init__(self, ontology: Ontology) -> None:
        self.ontology = ontology
        self._categories = _index((c.id, (*c.terms, c.id)) for c in ontology.categories.values())
        self._sites = _index((s.id, (*s.synonyms, s.id)) for s in ontology.sites.values())
        self._severities = _index(ontology.severities.items())
        self._sizes = _index(ontology.sizes.items())
        self._patterns = _index((value, (*terms, value)) for value, terms in ontology.patterns.items())
        lexicon = load_lexicon_data()
        positions = lexicon.positions
        self._positions = _index(positions.items())
        self.position_terms: Mapping[str, tuple[str, ...]] = positions
        short: dict[str, list[str]] = {}
        for words, place in lexicon.places.items():
            if len(place.sites) == 1:
                short.setdefault(place.sites[0], []).append(words)
        self.site_terms: Mapping[str, tuple[str, ...]] = {
            s.id: (*s.synonyms, *short.get(s.id, ())) for s in ontology.sites.values()
        }
        """Words of each site, those that name a side as well ("rll", "bibasilar") among them."""

    def category(self, words: str) -> str | None:
        """Return the category that goes by this name."""
        return self._categories.get(fold(words))

    def site(self, words: str) -> str | None:
        """Return the site that goes by this name."""
        return self._sites.get(fold(words))

    def severity(self, words: str) -> str | None:
        """Return the rank of severity that a word stands for."""
        return self._severities.get(fold(words))

    def size(self, words: str) -> str | None:
        """Return the rank of size that a word stands for."""
        return self._sizes.get(fold(words))

    def pattern(self, words: str) -> str | None:
        """Return the pattern that goes by this name."""
        return self._patterns.get(fold(words))

    def position(self, words: str) -> str | None:
        """Return the place of a device's tip that goes by this name."""
        return self._positions.get(fold(words))

    def misspelt(self, words: str) -> str | None:
        """Return the category whose name differs from these words by a slip of the pen."""
        return self._near(fold(words), _SURE)

    def nearest(self, words: str) -> str | None:
        """Return the known category whose name is most like these words, as a suggestion for a reviewer."""
        return self._near(fold(words), _LIKELY)

    def _near(self, name: str, cutoff: float) -> str | None:
        near = difflib.get_close_matches(name, self._categories, n=1, cutoff=cutoff)
        return self._categories[near[0]] if near else None


def _index(entries: Iterable[tuple[str, Iterable[str]]]) -> dict[str, str]:
    index: dict[str, str] = {}
    for value, terms in entries:
        for term in terms:
            index.setdefault(fold(term), value)
    return index
