"""A finding and its slots.

``Finding`` is the readable form, used at the edges (truth files, prompts, answers). Between stages findings travel as
Arrow columns (`medfilip.storage.schemas.FINDING`) and in hot loops as plain dictionaries of the same keys.
"""

from __future__ import annotations

from enum import StrEnum

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

    ``category``, ``severity``, ``size`` and ``sites`` hold ids of the ontology; a category it does not know is kept
    as ``other:<text>``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    certainty: Certainty = Certainty.PRESENT
    hedge: Hedge | None = None
    severity: str | None = None
    size: str | None = None
    size_mm: float | None = None
    laterality: Laterality | None = None
    sites: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    change: Change | None = None
    chronicity: Chronicity | None = None
    alignment: Alignment = Alignment.EXACT
    evidence: tuple[Evidence, ...] = ()
