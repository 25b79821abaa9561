"""What a category looks like, as data: loaded from ``data/knowledge.yaml`` and checked against the ontology.

Injecting visual attributes into the text is what lets a model diagnose categories it was never trained on (Liang et
al. 2025, section III-B). Keeping the attributes in versioned data, by axis and conditioned on the finding's own
severity, site and pattern, makes the injected text image-specific and lets a radiologist review it without code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.findings.codes import SIZE_AS_SEVERITY
from medfilip.findings.ontology import Ontology, load_ontology

Axis = Literal["density", "shape", "margin", "distribution", "site", "secondary_signs"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Attribute(_Strict):
    """A short visual phrase and the findings it fits; an empty condition fits every finding."""

    text: str = Field(min_length=3, max_length=60)
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
    attributes: dict[Axis, tuple[Attribute, ...]]
    descriptions: tuple[str, ...] = Field(min_length=3)

    @field_validator("attributes", mode="before")
    @classmethod
    def _spell_out(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {
            axis: [{"text": phrase} if isinstance(phrase, str) else phrase for phrase in phrases]
            for axis, phrases in data.items()
        }

    @field_validator("attributes")
    @classmethod
    def _limit_axes(cls, data: dict[Axis, tuple[Attribute, ...]]) -> dict[Axis, tuple[Attribute, ...]]:
        long = [axis for axis, phrases in data.items() if not 1 <= len(phrases) <= 4]
        if long:
            raise ValueError(f"the axes {long} must have one to four phrases")
        return data

    def phrases(self, finding: Mapping[str, object]) -> tuple[str, ...]:
        """Phrases that fit the finding, in the order of the axes; on an axis conditioned ones replace general ones.

        A moderate effusion is told as "fluid reaching the mid lung", not also as "dependent at the lung base".
        """
        return tuple(phrase for group in self._by_axis(finding) for phrase in group)

    def _by_axis(self, finding: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
        for attributes in self.attributes.values():
            fitting = [attribute for attribute in attributes if attribute.fits(finding)]
            specific = [attribute for attribute in fitting if attribute.conditional]
            yield tuple(attribute.text for attribute in specific or fitting)


class Knowledge(_Strict):
    """All entries, checked against one ontology."""

    version: int
    entries: dict[str, Entry]

    def entry(self, category: str) -> Entry | None:
        """Return the entry of a category, or ``None`` if nothing has been written about it yet."""
        return self.entries.get(category)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content."""
        return fingerprint(self.model_dump(mode="json"))


def parse_knowledge(text: str, ontology: Ontology) -> Knowledge:
    """Parse and check knowledge given as YAML text.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if a field does not fit or a category, severity, site or pattern is not in the ontology.
    """
    data = yaml.safe_load(text)
    try:
        entries = {key: {"category": key, **entry} for key, entry in data["entries"].items()}
        knowledge = Knowledge.model_validate({"version": data["version"], "entries": entries})
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        detail = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("entries",), "msg": str(error)}
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The knowledge file is invalid at '{'.'.join(map(str, detail['loc']))}': {detail['msg']}.",
            fix="Correct the entry; the header of knowledge.yaml describes every field.",
        ) from error
    unknown = sorted(set(_unknown_names(knowledge, ontology)))
    if unknown:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The knowledge file names {unknown}, which the ontology does not have.",
            fix="Use ids of ontology.yaml, or add them there.",
        )
    return knowledge


@lru_cache(maxsize=1)
def load_knowledge() -> Knowledge:
    """Load the knowledge that ships with the package, checked against the ontology that ships with it."""
    text = (files("medfilip.knowledge") / "data" / "knowledge.yaml").read_text(encoding="utf-8")
    return parse_knowledge(text, load_ontology())


def severity_rank(finding: Mapping[str, object]) -> str | None:
    """Severity of a finding, or the severity its size stands for (as in its integer code), or ``None``."""
    severity = finding.get("severity")
    return str(severity) if severity else SIZE_AS_SEVERITY.get(str(finding.get("size")))


def _unknown_names(knowledge: Knowledge, ontology: Ontology) -> Iterator[str]:
    yield from (f"category {name}" for name in knowledge.entries if name not in ontology.categories)
    for entry in knowledge.entries.values():
        for attribute in (phrase for phrases in entry.attributes.values() for phrase in phrases):
            yield from (f"severity {name}" for name in attribute.severities if name not in ontology.severities)
            yield from (f"site {name}" for name in attribute.sites if name not in ontology.sites)
            yield from (f"pattern {name}" for name in attribute.patterns if name not in ontology.patterns)


def _texts(finding: Mapping[str, object], slot: str) -> set[str]:
    values = finding.get(slot) or ()
    assert isinstance(values, list | tuple | set | frozenset)
    return {str(value) for value in values}
