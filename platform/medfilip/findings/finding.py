"""A finding and its slots.

``Finding`` is the readable form, used at the edges (truth files, prompts, answers). Between stages findings travel as
Arrow columns (`medfilip.storage.schemas.FINDING`) and in hot loops as plain dictionaries of the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Certainty(StrEnum):
    """Whether the report says that the finding is there."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


class Hedge(StrEnum):
    """How an uncertain or nearly certain statement is worded."""

    PROBABLE = "probable"
    POSSIBLE = "possible"
    VERSUS = "versus"
    CANNOT_EXCLUDE = "cannot_exclude"


class Laterality(StrEnum):
    """Side of the body, as the patient's left and right."""

    LEFT = "left"
    RIGHT = "right"
    BILATERAL = "bilateral"


class Change(StrEnum):
    """Change against an earlier examination."""

    NEW = "new"
    INCREASED = "increased"
    DECREASED = "decreased"
    UNCHANGED = "unchanged"
    RESOLVED = "resolved"


class Chronicity(StrEnum):
    """Age of the finding."""

    ACUTE = "acute"
    CHRONIC = "chronic"
    HEALED = "healed"


class Alignment(StrEnum):
    """How a finding was tied to the text."""

    EXACT = "exact"
    NORMALISED = "normalised"
    INFERRED = "inferred"


class Evidence(BaseModel):
    """A half-open span ``[start, end)`` of code points that supports one slot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slot: str
    start: int = Field(ge=0)
    end: int = Field(gt=0)


class Finding(BaseModel):
    """One finding as a text states it; slots the text does not fill are ``None`` or empty.

    ``category``, ``severity``, ``size``, ``sites`` and ``position`` hold ids of the ontology; a category it does not
    know is kept as ``other:<text>``, with the nearest one it does know as ``suggestion``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    certainty: Certainty = Certainty.PRESENT
    hedge: Hedge | None = None
    severity: str | None = None
    size: str | None = None
    size_mm: float | None = None
    count: int | None = None
    laterality: Laterality | None = None
    sites: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    change: Change | None = None
    chronicity: Chronicity | None = None
    position: str | None = None
    alignment: Alignment = Alignment.EXACT
    evidence: tuple[Evidence, ...] = ()
    confidence: float | None = Field(None, ge=0, le=1)
    suggestion: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Finding:
        """Read a finding from a row of any dataset that holds the columns of a finding; other columns are left out."""
        values = {name: row[name] for name in cls.model_fields if row.get(name) is not None}
        return cls.model_validate(values)

    def to_row(self) -> dict[str, Any]:
        """Return the finding as a row with exactly the keys of `medfilip.storage.schemas.FINDING`."""
        return self.model_dump(mode="python") | {
            "sites": list(self.sites),
            "patterns": list(self.patterns),
            "evidence": [span.model_dump() for span in self.evidence],
        }
