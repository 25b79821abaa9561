"""The calibrated confidence of a finding: a small logistic model over signs that are visible in its sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import Ontology


def signs(finding: Mapping[str, Any], group: str | None, doubts: Sequence[str]) -> Iterator[str]:
    """Yield the signs of a finding (a row) as names of weights: certainty, hedge, alignment, group, doubts.

    Group and doubts say nothing about a denial: "no effusion" is as plain in a long sentence as in a short one.
    """
    yield f"certainty={finding['certainty']}"
    yield f"alignment={finding['alignment']}"
    if finding["hedge"] is not None:
        yield f"hedge={finding['hedge']}"
    if finding["certainty"] != Certainty.ABSENT:
        yield f"group={group}"
        yield from (f"doubt={doubt}" for doubt in doubts)


class ConfidenceModel(BaseModel):
    """Weights of signs; a sign without one weighs nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    intercept: float
    weights: dict[str, float]

    def probability(self, names: Iterator[str]) -> float:
        """Return the probability, in [0, 1], that a finding with these signs is right."""
        return 1 / (1 + math.exp(-self.intercept - sum(self.weights.get(name, 0.0) for name in names)))


class Confidence:
    """Confidence of findings of one ontology; equal signs are computed once."""

    def __init__(self, model: ConfidenceModel, ontology: Ontology) -> None:
        self._model = model
        self._groups = {category.id: category.group for category in ontology.categories.values()}
        self._known: dict[tuple[Any, ...], float] = {}

    def of(self, finding: Mapping[str, Any], doubts: tuple[str, ...]) -> float:
        """Return the confidence of a finding in a sentence with these doubts."""
        group = self._groups.get(finding["category"])
        key = (finding["certainty"], finding["alignment"], finding["hedge"], group, doubts)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._model.probability(signs(finding, group, doubts))
        return known


@lru_cache(maxsize=1)
def load_confidence() -> ConfidenceModel:
    """Load the model that ships with the package."""
    text = (files("medfilip.extraction") / "data" / "confidence.yaml").read_text(encoding="utf-8")
    return ConfidenceModel.model_validate(yaml.safe_load(text))
