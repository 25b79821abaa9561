"""Findings as small integers: what training and the similarity matrix compute with.

Codes are positions in the ontology, so they mean something only together with the ontology's fingerprint, which every
manifest and checkpoint carries. ``NONE`` (-1) stands for a slot the text does not fill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from medfilip.findings.finding import Certainty, Laterality
from medfilip.findings.ontology import Ontology

NONE = -1

CERTAINTIES: tuple[str, ...] = (Certainty.PRESENT, Certainty.ABSENT, Certainty.UNCERTAIN)
LATERALITIES: tuple[str, ...] = (Laterality.LEFT, Laterality.RIGHT, Laterality.BILATERAL)

SIZE_AS_SEVERITY = {"tiny": "minimal", "small": "mild", "medium": "moderate", "large": "severe"}


class FindingCode(TypedDict):
    """A row of `medfilip.storage.schemas.FINDING_CODES`, less its text ids."""

    category: int
    certainty: int
    severity: int
    laterality: int
    sites: list[int]


@dataclass(frozen=True)
class Codebook:
    """Positions of categories, sites and severity ranks in one ontology."""

    ontology: Ontology
    categories: tuple[str, ...]
    sites: tuple[str, ...]
    severities: tuple[str, ...]

    @classmethod
    def of(cls, ontology: Ontology) -> Codebook:
        """Take the order of the ontology as it is."""
        return cls(ontology, tuple(ontology.categories), tuple(ontology.sites), tuple(ontology.severities))

    def encode(self, finding: Mapping[str, object]) -> FindingCode | None:
        """Encode a finding given as a row; ``None`` for a category outside the ontology.

        A size stands in for a missing severity (a small effusion is a mild one): one rank axis serves both.
        """
        category = finding["category"]
        if category not in self.ontology.categories:
            return None
        severity = finding.get("severity") or SIZE_AS_SEVERITY.get(str(finding.get("size")))
        sites = finding.get("sites") or ()
        assert isinstance(sites, Sequence)
        return FindingCode(
            category=_position(self.categories, category),
            certainty=_position(CERTAINTIES, finding["certainty"]),
            severity=_position(self.severities, severity),
            laterality=_position(LATERALITIES, finding.get("laterality")),
            sites=sorted(self.sites.index(site) for site in sites if site in self.ontology.sites),
        )

    def decode(self, code: Mapping[str, Any]) -> dict[str, object]:
        """Turn codes back into a finding, as far as codes go: patterns and sizes are not among them."""
        finding: dict[str, object] = {
            "category": self.categories[code["category"]],
            "certainty": CERTAINTIES[code["certainty"]],
            "sites": [self.sites[site] for site in code["sites"]],
        }
        if code["severity"] != NONE:
            finding["severity"] = self.severities[code["severity"]]
        if code["laterality"] != NONE:
            finding["laterality"] = LATERALITIES[code["laterality"]]
        return finding


def _position(values: tuple[str, ...], value: object) -> int:
    return values.index(value) if isinstance(value, str) and value in values else NONE
