"""Coded concepts for what an answer says, as FHIR and DICOM both take them.

A concept without a code that we are sure of gets our own: an honest private code can be mapped by whoever reads it, a
wrong public one cannot be told from a right one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

from medfilip.answers import Decision, DiagnosedFinding, SlotChoice
from medfilip.findings.ontology import load_ontology

MAX_MEANING = 64
"""Length of a Code Meaning in DICOM (LO; PS3.5, section 6.2)."""
_SCHEMES = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
}
"""Scheme designator in DICOM → system in FHIR (PS3.16, table 8-1)."""


class _Scheme(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: str
    designator: str
    name: str


class Codes(BaseModel):
    """Content of ``data/codes.yaml``: pairs of code and meaning in SNOMED CT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    scheme: _Scheme
    findings: dict[str, tuple[str, str]]
    sites: dict[str, tuple[str, str]]
    severities: dict[str, tuple[str, str]]
    sides: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Concept:
    """A code with its meaning.

    Attributes
    ----------
    scheme
        Designator in DICOM: ``SCT``, ``LN``, ``DCM``, ``UCUM`` or our own.
    code
        The code; more than 16 characters make it a Long Code Value in DICOM.
    meaning
        Text for people.
    """

    scheme: str
    code: str
    meaning: str

    @property
    def system(self) -> str:
        """The scheme as a URI, as FHIR names it."""
        return _SCHEMES.get(self.scheme) or f"urn:oid:{load_codes().scheme.uid}"


@lru_cache(maxsize=1)
def load_codes() -> Codes:
    """Load and check the codes that ship with the package."""
    text = (files("medfilip.standards") / "data" / "codes.yaml").read_text(encoding="utf-8")
    return Codes.model_validate(yaml.safe_load(text))


def own(code: str, meaning: str) -> Concept:
    """Return a concept of our own scheme."""
    return Concept(load_codes().scheme.designator, code, meaning)


PRESENT = Concept("SCT", "52101004", "Present")
ABSENT = Concept("SCT", "2667000", "Absent")
ABSENT_IN_DICOM = Concept("SCT", "272519000", "Absent")
"""The code that CID 240 (Present-Absent-Undetermined) of DICOM has for it; FHIR profiles use SNOMED's 2667000."""
UNDETERMINED = Concept("SCT", "373068000", "Undetermined")


def finding_concepts(finding: DiagnosedFinding) -> tuple[Concept, ...]:
    """Return the codes of what was asked for, a public one first; none for a text that is no bare category."""
    category = finding.category
    if category is None:
        return ()
    ours = own(category, load_ontology().label(category))
    known = load_codes().findings.get(category)
    return (Concept("SCT", *known), ours) if known else (ours,)


def decision_concept(decision: Decision, *, dicom: bool = False) -> Concept:
    """Return the code of a decision; an abstention is undetermined."""
    if decision == "abstained":
        return UNDETERMINED
    if decision == "present":
        return PRESENT
    return ABSENT_IN_DICOM if dicom else ABSENT


def settled(choice: SlotChoice | None) -> SlotChoice | None:
    """Return a choice that outweighs all others together: a code has no room for "perhaps"."""
    return choice if choice is not None and choice.settled else None


def severity_concept(finding: DiagnosedFinding) -> Concept | None:
    """Return the code of the severity of a finding, if one is settled."""
    choice = settled(finding.severity)
    return _slot(load_codes().severities, "severity", choice.value) if choice else None


def place_concepts(finding: DiagnosedFinding) -> tuple[Concept | None, Concept | None]:
    """Return the codes of site and side; a side that is part of the site (``right_lower_lobe``) is told apart."""
    site, side = (choice.value if choice else None for choice in map(settled, (finding.site, finding.laterality)))
    prefix, _, rest = (site or "").partition("_")
    if prefix in load_codes().sides and rest in load_ontology().sites:
        site, side = rest, side or prefix
    return (
        _slot(load_codes().sites, "site", site) if site else None,
        _slot(load_codes().sides, "side", side) if side else None,
    )


def _slot(known: dict[str, tuple[str, str]], kind: str, value: str) -> Concept:
    if value in known:
        return Concept("SCT", *known[value])
    return own(f"{kind}.{value}", value.replace("_", " "))


def shortened(text: str, limit: int = MAX_MEANING) -> str:
    """Cut a text to ``limit`` bytes of UTF-8, with an ellipsis where something is missing.

    DICOM counts characters, but some of its readers count bytes; a text that fits either way is refused by none. A
    backslash, which would make several values of it, becomes a slash.
    """
    text = text.replace("\\", "/")
    if len(text.encode()) <= limit:
        return text
    return text.encode()[: limit - len("…".encode())].decode(errors="ignore").rstrip() + "…"
