"""What a category looks like, as data: loaded from ``data/*.yaml`` and checked against the ontology.

Injecting visual attributes into the text is what lets a model diagnose categories it was never trained on (Liang et
al. 2025, section III-B). Keeping the attributes in versioned data, by axis and conditioned on the finding's own
severity, site and pattern, makes the injected text image-specific and lets a radiologist review it without code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medfilip.core.fingerprint import fingerprint
from medfilip.findings.codes import SIZE_AS_SEVERITY
from medfilip.findings.ontology import load_ontology

Axis = Literal["density", "shape", "margin", "distribution", "site", "secondary_signs"]
AXES: tuple[Axis, ...] = get_args(Axis)
MIN_PHRASE, MAX_PHRASE = 3, 60
"""Characters of an attribute's phrase."""
MAX_PHRASES = 6
"""Phrases of one axis, conditioned ones included."""
MIN_DESCRIPTIONS = 3


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Attribute(_Strict):
    """A short visual phrase and the findings it fits; an empty condition fits every finding."""

    text: str = Field(min_length=MIN_PHRASE, max_length=MAX_PHRASE)
    severities: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    @property
    def conditional(self) -> bool:
        """Whether the phrase is tied to a severity, site or pattern."""
        return bool(self.severities or self.sites or self.patterns)

    def fits(self, finding: Mapping[str, object]) -> bool:
        """Whether every condition that is given holds for the finding (a row with the keys of a `Finding`)."""
        return (
            (not self.severities or severity_rank(finding) in self.severities)
            and (not self.sites or bool(_texts(finding, "sites") & set(self.sites)))
            and (not self.patterns or bool(_texts(finding, "patterns") & set(self.patterns)))
        )


class Entry(_Strict):
    """The visual knowledge about one category."""

    category: str
    review: Literal["unreviewed", "reviewed"]
    sources: tuple[str, ...] = ()
    attributes: dict[Axis, tuple[Attribute, ...]]
    descriptions: tuple[str, ...] = Field(min_length=MIN_DESCRIPTIONS)

    @field_validator("attributes", mode="before")
    @classmethod
    def _spell_out(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {
            axis: [{"text": phrase} if isinstance(phrase, str) else phrase for phrase in phrases]
            if isinstance(phrases, list | tuple)
            else phrases
            for axis, phrases in data.items()
        }

    @field_validator("attributes")
    @classmethod
    def _limit_axes(cls, data: dict[Axis, tuple[Attribute, ...]]) -> dict[Axis, tuple[Attribute, ...]]:
        long = [axis for axis, phrases in data.items() if not 1 <= len(phrases) <= MAX_PHRASES]
        if long:
            raise ValueError(f"the axes {long} must have one to {MAX_PHRASES} phrases")
        return {axis: data[axis] for axis in AXES if axis in data}

    def phrases(self, finding: Mapping[str, object]) -> tuple[str, ...]:
        """Phrases that fit the finding, the most telling of every axis first, then the second ones, and so on.

        On an axis conditioned phrases replace general ones: a moderate effusion is told as "fluid reaching the mid
        lung", not also as "dependent at the lung base". What a text has no room for is cut from the end.
        """
        groups = self._by_axis(finding)
        rounds = range(max((len(group) for group in groups), default=0))
        return tuple(group[turn] for turn in rounds for group in groups if turn < len(group))

    def _by_axis(self, finding: Mapping[str, object]) -> list[tuple[str, ...]]:
        groups = []
        for attributes in self.attributes.values():
            fitting = [attribute for attribute in attributes if attribute.fits(finding)]
            specific = [attribute for attribute in fitting if attribute.conditional]
            groups.append(tuple(attribute.text for attribute in specific or fitting))
        return groups

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield every phrase with its axis, and every description with the name ``descriptions``."""
        for axis, attributes in self.attributes.items():
            yield from ((axis, attribute.text) for attribute in attributes)
        yield from (("descriptions", text) for text in self.descriptions)


class Knowledge(_Strict):
    """All entries, checked against one ontology; the header of ``data/knowledge.yaml`` describes every field."""

    version: int
    sources: dict[str, str] = Field(default_factory=dict)
    signs: tuple[str, ...] = ()
    without_entry: dict[str, str] = Field(default_factory=dict)
    entries: dict[str, Entry]

    def entry(self, category: str) -> Entry | None:
        """Return the entry of a category, or ``None`` if nothing has been written about it yet."""
        return self.entries.get(category)

    @cached_property
    def users(self) -> dict[str, frozenset[str]]:
        """Attribute phrase → the categories whose entries use it."""
        found: dict[str, set[str]] = {}
        for entry in self.entries.values():
            for attribute in (phrase for phrases in entry.attributes.values() for phrase in phrases):
                found.setdefault(attribute.text, set()).add(entry.category)
        return {text: frozenset(categories) for text, categories in found.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content."""
        return fingerprint(self.model_dump(mode="json"))


@lru_cache(maxsize=1)
def load_knowledge() -> Knowledge:
    """Load the knowledge that ships with the package, checked against the ontology that ships with it."""
    from medfilip.knowledge.reading import parse_documents

    return parse_documents(installed_documents(), load_ontology())


def installed_documents() -> dict[str, str]:
    """Return the YAML files that ship with the package: name → text, in the order in which they are merged."""
    folder = files("medfilip.knowledge") / "data"
    named = sorted((file.name, file) for file in folder.iterdir() if file.name.endswith(".yaml"))
    return {name: file.read_text(encoding="utf-8") for name, file in named}


def severity_rank(finding: Mapping[str, object]) -> str | None:
    """Severity of a finding, or the severity its size stands for (as in its integer code), or ``None``."""
    severity = finding.get("severity")
    return str(severity) if severity else SIZE_AS_SEVERITY.get(str(finding.get("size")))


def _texts(finding: Mapping[str, object], slot: str) -> set[str]:
    values = finding.get(slot) or ()
    assert isinstance(values, list | tuple | set | frozenset)
    return {str(value) for value in values}
