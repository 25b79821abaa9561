"""The annotators' findings: MeSH annotations of the Indiana University collection through the ontology's cross-walk.

An annotation is a heading with qualifiers ("Pulmonary Atelectasis/base/left"); a category's pattern names the heading
and, in brackets, what its qualifiers must or must not be ("Opacity[interstitial|reticular&!ribs]"). Annotations name
positive findings only, and not every one: agreement with them is agreement, not accuracy (Demner-Fushman et al.,
JAMIA 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from medfilip.findings.ontology import Category, Ontology

NORMAL = "normal"
NOT_INDEXED = "No Indexing"


class Qualifiers(BaseModel):
    """Content of ``data/mesh_qualifiers.yaml``: what a qualifier fills."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    severity: dict[str, str]
    size: dict[str, str]
    laterality: dict[str, str]
    site: dict[str, str]
    heading_site: dict[str, str]


@dataclass(frozen=True)
class _Pattern:
    category: str
    heading: str
    clauses: tuple[tuple[bool, frozenset[str]], ...]

    def fits(self, qualifiers: frozenset[str]) -> bool:
        return all(bool(qualifiers & alternatives) != negated for negated, alternatives in self.clauses)


class MeshReader:
    """Reads annotations as findings of one ontology."""

    def __init__(self, ontology: Ontology) -> None:
        self._qualifiers = load_qualifiers()
        self._patterns: dict[str, list[_Pattern]] = {}
        for category in scored_categories(ontology):
            for text in category.crosswalk.mesh:
                pattern = _parse_pattern(category.id, text)
                self._patterns.setdefault(pattern.heading, []).append(pattern)

    def read(self, annotation: str) -> list[dict[str, Any]]:
        """Return the findings an annotation names: none for "normal" or a heading outside the cross-walk."""
        heading, *given = annotation.split("/")
        known = self._qualifiers
        sides = [known.laterality[q] for q in given if q in known.laterality]
        sites = [known.site[q] for q in given if q in known.site]
        if heading.lower() in known.heading_site:
            sites.append(known.heading_site[heading.lower()])
        slots = {
            "certainty": "present",
            "severity": next((known.severity[q] for q in given if q in known.severity), None),
            "size": next((known.size[q] for q in given if q in known.size), None),
            "laterality": "bilateral" if len(set(sides)) > 1 else next(iter(sides), None),
            "sites": sites,
        }
        fitting = [p.category for p in self._patterns.get(heading, ()) if p.fits(frozenset(given))]
        return [{"category": category, **slots} for category in dict.fromkeys(fitting)]


def scored_categories(ontology: Ontology) -> Iterator[Category]:
    """Yield the categories that the annotation can be compared in: those with a heading of their own."""
    for category in ontology.categories.values():
        if category.crosswalk.mesh and not category.crosswalk.rollup_to and category.group != "quality":
            yield category


def _parse_pattern(category: str, text: str) -> _Pattern:
    heading, _, conditions = text.rstrip("]").partition("[")
    clauses = [
        (clause.startswith("!"), frozenset(clause.lstrip("!").split("|"))) for clause in conditions.split("&") if clause
    ]
    return _Pattern(category, heading.strip(), tuple(clauses))


@lru_cache(maxsize=1)
def load_qualifiers() -> Qualifiers:
    """Load the table of qualifiers."""
    text = (files("medfilip.evaluation") / "data" / "mesh_qualifiers.yaml").read_text(encoding="utf-8")
    return Qualifiers.model_validate(yaml.safe_load(text))
