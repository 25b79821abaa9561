"""Look-up tables of the similarity matrix, built once from the ontology.

Legend of tensor names: C categories, S sites, V views. In ``XX`` tables the row belongs to the image's finding and
the column to the text's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from medfilip.core.settings import Settings
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import Ontology

VIEWS: tuple[str, ...] = ("frontal", "lateral", "unknown")
"""Order of the view codes; in an unknown view every category counts as visible."""

SimilarityMode = Literal["factorised", "text_cosine", "category", "one_hot"]
"""How alike two statements are taken to be; see `medfilip.similarity.targets`."""

_ANCESTOR_SITE = 0.5  # "lung" and "lower lobe" overlap, but less than two names of one region


class SimilarityWeights(Settings):
    """Mode of the similarity matrix, and weights of its default mode ``factorised`` (method, section 4)."""

    mode: SimilarityMode = Field(
        default="factorised", description="targets: factorised, text_cosine (the authors'), category or one_hot"
    )
    category: float = Field(default=0.5, gt=0, le=1, description="share of the category itself")
    location: float = Field(default=0.3, ge=0, le=1, description="share of the overlap of region and side")
    severity: float = Field(default=0.2, ge=0, le=1, description="share of the closeness of severity ranks")
    parent: float = Field(
        default=0.45, ge=0, le=1, description="image finding against a text about its parent category"
    )
    child: float = Field(default=0.35, ge=0, le=1, description="image finding against a text about a child category")
    sibling: float = Field(default=0.2, ge=0, le=1, description="categories that share a parent")
    generation: float = Field(default=0.8, gt=0, le=1, description="factor for each further step up or down the tree")
    uncertain: float = Field(default=0.5, ge=0, le=1, description="factor between an uncertain and a definite finding")
    silent: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="weight of counting a category the report is silent about as absent; 0 masks it out",
    )

    @model_validator(mode="after")
    def _check_order(self) -> SimilarityWeights:
        if abs(self.category + self.location + self.severity - 1) > 1e-6:
            raise ValueError("category, location and severity must sum to 1")
        if not self.sibling <= self.child <= self.parent < self.category:
            raise ValueError(
                "sibling <= child <= parent < category must hold, or a relative outranks the finding itself"
            )
        return self


@dataclass(frozen=True)
class SimilarityTables:
    """Tables of one ontology on one device.

    Attributes
    ----------
    category_CC
        float32: 1 for the same category, partial for ancestor, descendant and sibling, 0 for unrelated ones.
    is_a_CC
        bool: the row's category is the column's or a descendant of it.
    site_SS
        float32: 1 within one region, 0.5 between a site and its ancestor, else 0.
    visible_VC
        bool: the category can be judged in the view.
    silence_C
        float32: how much a report's silence about the category says, as a factor of ``SimilarityWeights.silent``; 1
        unless a corpus says otherwise.
    ranks
        Number of severity ranks.
    """

    category_CC: Tensor
    is_a_CC: Tensor
    site_SS: Tensor
    visible_VC: Tensor
    silence_C: Tensor
    ranks: int

    def to(self, device: torch.device | str) -> SimilarityTables:
        """Move every table to a device."""
        return SimilarityTables(
            self.category_CC.to(device),
            self.is_a_CC.to(device),
            self.site_SS.to(device),
            self.visible_VC.to(device),
            self.silence_C.to(device),
            self.ranks,
        )


def build_tables(codebook: Codebook, weights: SimilarityWeights) -> SimilarityTables:
    """Build the tables of an ontology; the category tree enters through ``weights``."""
    ontology, names = codebook.ontology, codebook.categories
    distances = [_distances_up(name, ontology) for name in names]
    category = [[_relation(a, b, distances, names, weights) for b in range(len(names))] for a in range(len(names))]
    is_a = [[names[b] in distances[a] for b in range(len(names))] for a in range(len(names))]
    site = [[_site_overlap(a, b, ontology) for b in codebook.sites] for a in codebook.sites]
    visible = [[view == "unknown" or view in ontology.categories[name].views for name in names] for view in VIEWS]
    return SimilarityTables(
        category_CC=torch.tensor(category),
        is_a_CC=torch.tensor(is_a),
        site_SS=torch.tensor(site),
        visible_VC=torch.tensor(visible),
        silence_C=torch.ones(len(names)),
        ranks=len(codebook.severities),
    )


def _distances_up(category: str, ontology: Ontology) -> dict[str, int]:
    """Count the steps from a category up to itself (0) and each of its ancestors, by the shortest way."""
    distances, frontier = {category: 0}, [category]
    while frontier:
        above = {parent: distances[name] + 1 for name in frontier for parent in ontology.categories[name].parents}
        frontier = [name for name in above if name not in distances]
        distances |= {name: above[name] for name in frontier}
    return distances


def _relation(
    a: int, b: int, distances: list[dict[str, int]], names: tuple[str, ...], weights: SimilarityWeights
) -> float:
    if a == b:
        return 1.0
    up, down = distances[a].get(names[b]), distances[b].get(names[a])
    if up is not None:
        return float(weights.parent * weights.generation ** (up - 1))
    if down is not None:
        return float(weights.child * weights.generation ** (down - 1))
    shared = {name for name, steps in distances[a].items() if steps == 1} & {
        name for name, steps in distances[b].items() if steps == 1
    }
    return float(weights.sibling) if shared else 0.0


def _site_overlap(a: str, b: str, ontology: Ontology) -> float:
    if ontology.region(a) == ontology.region(b):
        return 1.0
    return _ANCESTOR_SITE if a in _site_ancestors(b, ontology) or b in _site_ancestors(a, ontology) else 0.0


def _site_ancestors(site: str, ontology: Ontology) -> set[str]:
    found: set[str] = set()
    parent = ontology.sites[site].parent
    while parent is not None and parent not in found:
        found.add(parent)
        parent = ontology.sites[parent].parent
    return found
