"""Fine-grained diagnosis: which side, how severe, at which site, of a finding that is known to be there.

Each question is put as a choice between labels that differ in one word ("left pleural effusion" against "right pleural
effusion") and is asked of the images that show the category with that slot known, so a model gains nothing by finding
the category. What is on both sides has no side to choose.

Legend of tensor names: F findings that are asked about, K choices, R resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.evaluation.metrics import (
    Floats,
    Interval,
    Ints,
    Weights,
    aurocs,
    divided,
    interval_of,
    resample_weights,
    weighted_means,
    weighted_sums,
)
from medfilip.findings.ontology import Ontology, load_ontology
from medfilip.knowledge.slots import Slot, slot_label, slot_values
from medfilip.model.diagnoser import Diagnoser, FloatArray


@dataclass(frozen=True)
class Detail:
    """What is known of a category that an image shows; an unknown slot is empty."""

    laterality: str | None = None
    severity: str | None = None
    sites: tuple[str, ...] = ()

    def value(self, slot: Slot) -> str | None:
        """Return the slot's value where there is exactly one."""
        if slot == "site":
            return self.sites[0] if len(self.sites) == 1 else None
        return self.laterality if slot == "laterality" else self.severity


class SlotResult(BaseModel):
    """How well one slot of one category (or, with ``category`` empty, of all of them together) is told.

    Attributes
    ----------
    choices
        What is chosen from, with the number of findings that have it.
    accuracy
        Share of right choices.
    chance
        Accuracy of choosing blindly; ``majority``: of always choosing the commonest.
    concordance
        Of severities: the share of pairs of unequal severity that are put into the right order, ties counted half.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slot: Slot
    category: str
    findings: int
    choices: dict[str, int]
    accuracy: Interval
    chance: float
    majority: float
    concordance: Interval | None = None


@dataclass(frozen=True)
class _Asked:
    """The findings of one category whose slot is known, and what the model makes of them."""

    category: str
    choices: tuple[str, ...]
    truth_F: Ints
    score_FK: Floats
    patients: tuple[str, ...]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.score_FK.argmax(axis=1) == self.truth_F
        return found


def evaluate_fine_grained(
    diagnoser: Diagnoser,
    image_ND: FloatArray,
    details: Sequence[Mapping[str, Detail]],
    patients: Sequence[str],
    *,
    labels: Sequence[str],
    min_findings: int = 8,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[SlotResult, ...]:
    """Evaluate side, severity and site of the categories that images show.

    Parameters
    ----------
    diagnoser, image_ND
        A model, and images embedded by it.
    details
        Of each image: category → what is known of it, for the categories it shows.
    patients
        Patient of each image.
    labels
        Categories to ask about.
    min_findings
        A choice is offered from so many findings that have it; a slot is asked where two choices are left.
    resamples, seed
        Of the bootstrap over patients.

    Returns
    -------
    tuple of SlotResult
        For each slot that was asked: all categories together first, then each of them.
    """
    ontology, found = load_ontology(), []
    for slot in ("laterality", "severity", "site"):
        asked = [
            item
            for label in labels
            if (item := _ask(diagnoser, image_ND, details, patients, label, slot, min_findings, ontology))
        ]
        if len(asked) > 1:
            found.append(_together(slot, asked, resamples, seed))
        found += [_result(slot, item, resamples, seed) for item in asked]
    return tuple(found)


def _ask(
    diagnoser: Diagnoser, image_ND: FloatArray, details: Sequence[Mapping[str, Detail]], patients: Sequence[str],
    label: str, slot: Slot, min_findings: int, ontology: Ontology,
) -> _Asked | None:  # fmt: skip
    values = [item[label].value(slot) if label in item else None for item in details]
    counts = Counter(value for value in values if value is not None)
    choices = tuple(value for value in slot_values(slot, ontology) if counts[value] >= min_findings)
    rows = [row for row, value in enumerate(values) if value in choices]
    if len(choices) < 2:
        return None
    bank = diagnoser.encode_labels([slot_label(slot, choice, label, ontology) for choice in choices])
    return _Asked(
        label,
        choices,
        np.array([choices.index(str(values[row])) for row in rows]),
        diagnoser.score(image_ND[rows], bank).positive_NL,
        tuple(patients[row] for row in rows),
    )


def _result(slot: Slot, asked: _Asked, resamples: int, seed: int) -> SlotResult:
    weights_RF = resample_weights(asked.patients, resamples, seed)
    accuracy = interval_of(weighted_means(weights_RF, asked.is_right.astype(float)))
    assert accuracy is not None
    counts = np.bincount(asked.truth_F, minlength=len(asked.choices))
    return SlotResult(
        slot=slot,
        category=asked.category,
        findings=len(asked.truth_F),
        choices={choice: int(count) for choice, count in zip(asked.choices, counts, strict=True)},
        accuracy=accuracy,
        chance=1 / len(asked.choices),
        majority=float(counts.max() / counts.sum()),
        concordance=interval_of(_concordances(asked, weights_RF)) if slot == "severity" else None,
    )


def _together(slot: Slot, asked: Sequence[_Asked], resamples: int, seed: int) -> SlotResult:
    patients = [patient for item in asked for patient in item.patients]
    right_F = np.concatenate([item.is_right for item in asked]).astype(float)
    accuracy = interval_of(weighted_means(resample_weights(patients, resamples, seed), right_F))
    assert accuracy is not None
    share = [len(item.truth_F) / len(right_F) for item in asked]
    each = [_result(slot, item, 0, seed) for item in asked]
    return SlotResult(
        slot=slot,
        category="",
        findings=len(right_F),
        choices=dict(sum((Counter(item.choices) for item in each), Counter())),
        accuracy=accuracy,
        chance=sum(part * item.chance for part, item in zip(share, each, strict=True)),
        majority=sum(part * item.majority for part, item in zip(share, each, strict=True)),
    )


def _concordances(asked: _Asked, weights_RF: Weights) -> Floats:
    """Return the concordance of every resample: AUROCs between any two severities, weighted by their pairs; [R]."""
    rank_F = _expected_rank(asked.score_FK)
    summed_R, pairs_R = np.zeros(len(weights_RF)), np.zeros(len(weights_RF))
    for low, high in combinations(range(len(asked.choices)), 2):
        rows_F = (asked.truth_F == low) | (asked.truth_F == high)
        area_R = aurocs((asked.truth_F[rows_F] == high).astype(np.int64), rank_F[rows_F], weights_RF[:, rows_F])
        sizes = [weighted_sums(weights_RF, asked.truth_F == rank) for rank in (low, high)]
        pairs_R += sizes[0] * sizes[1]
        summed_R += np.nan_to_num(area_R) * sizes[0] * sizes[1]
    return divided(summed_R, pairs_R)


def _expected_rank(score_FK: Floats) -> Floats:
    """Return the mean rank under the softmax of the logits, [F]: finer than the rank of the best."""
    odds_FK = np.exp(score_FK - score_FK.max(axis=1, keepdims=True))
    found: Floats = (odds_FK * np.arange(score_FK.shape[1])).sum(axis=1) / odds_FK.sum(axis=1)
    return found
