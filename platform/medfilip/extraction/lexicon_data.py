"""The rule engine's data: cues and phrases of ``data/lexicon.yaml``, joined with the terms of the ontology."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

from medfilip.core.fingerprint import fingerprint
from medfilip.findings.finding import Alignment, Certainty, Hedge, Laterality
from medfilip.findings.ontology import Ontology

_GAP = r"(?:[ -][\w'/]+){0,4}"  # up to four words without punctuation: what {x} stands for


class Phrase(BaseModel):
    """A statement whose words stand apart, as a regular expression."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    pattern: str
    certainty: Certainty | None = None
    alignment: Alignment = Alignment.EXACT

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern, at word boundaries."""
        return re.compile(rf"\b(?:{self.pattern.replace('{x}', _GAP)})\b")


class LexiconData(BaseModel):
    """Content of ``data/lexicon.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    negation_before: tuple[str, ...]
    negation_after: tuple[str, ...]
    not_negation: tuple[str, ...]
    hedges_before: dict[Hedge, tuple[str, ...]]
    hedges_after: dict[Hedge, tuple[str, ...]]
    hedges_that_state: frozenset[Hedge]
    terminators: tuple[str, ...]
    conditions: tuple[str, ...]
    laterality: dict[Laterality, tuple[str, ...]]
    site_abbreviations: dict[str, str]
    changes: dict[str, tuple[str, ...]]
    chronicity: dict[str, tuple[str, ...]]
    phrases: tuple[Phrase, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content."""
        content = self.model_dump(mode="json")
        content["hedges_that_state"] = sorted(content["hedges_that_state"])
        return fingerprint(content)

    def vocabulary(self, ontology: Ontology) -> Iterator[tuple[str, str, str]]:
        """Yield (term, slot, value) of every term the engine looks for."""
        for category in ontology.categories.values():
            yield from ((term, "category", category.id) for term in category.terms)
        for site in ontology.sites.values():
            yield from ((term, "site", site.id) for term in site.synonyms)
        for slot, values in (
            ("severity", ontology.severities),
            ("size", ontology.sizes),
            ("pattern", ontology.patterns),
        ):
            yield from ((term, slot, value) for value, terms in values.items() for term in terms)
        for slot in ("negation_before", "negation_after", "not_negation", "terminators", "conditions"):
            yield from ((term, slot, term) for term in getattr(self, slot))
        for slot in ("hedges_before", "hedges_after", "laterality", "changes", "chronicity"):
            yield from ((term, slot, value) for value, terms in getattr(self, slot).items() for term in terms)
        yield from ((term, "site", site) for term, site in self.site_abbreviations.items())


@lru_cache(maxsize=1)
def load_lexicon_data() -> LexiconData:
    """Load and check the rule data that ships with the package."""
    text = (files("medfilip.extraction") / "data" / "lexicon.yaml").read_text(encoding="utf-8")
    return LexiconData.model_validate(yaml.safe_load(text))
