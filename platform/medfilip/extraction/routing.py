"""The ``auto`` engine's decisions: which sentences a model sees, whose findings count, what a person should look at.

Rules read every sentence first. They *cannot settle* a sentence if they name a doubt about it (``doubts`` is not
empty): a model is asked about those, and its findings count where its answer is usable. It is also asked about a seeded
sample of the settled ones, only to measure how often the two agree: there the rules' findings stay. Wherever the two
disagree about a sentence it goes to the review queue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medfilip.extraction.engine import FindingRow
from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import Ontology

ROUTING_VERSION = "1"

DOUBT, AUDIT = "doubt", "audit"
CATEGORY, CERTAINTY, SIDE = "category", "certainty", "side"


def unsettled(rules: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows of ``sentence_findings`` of the rules they could not settle: those with a doubt."""
    counts = pc.fill_null(pc.list_value_length(rules["doubts"]), 0)
    return np.asarray(counts.to_numpy(zero_copy_only=False) > 0)


def in_audit(sentence_ids: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which sentences the audit sample holds: a pure function of id and seed, whatever else is in the corpus.

    The draw is SplitMix64 of the id and the seed (Steele, Lea & Flood, OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        state = sentence_ids.view(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) / (1 << 53) < share)


def disagreements(rules: Sequence[FindingRow], model: Sequence[FindingRow], ontology: Ontology) -> list[str]:
    """Return in what two readings of a sentence disagree, in a fixed order; nothing if they agree.

    ``category``: one states or suspects something that the other has not, and no parent or child of it either.
    ``certainty``: both have a category, with different certainties. ``side``: both have it as present or uncertain, on
    different sides. A denial that only one of them lists is no disagreement: readers differ in how much they spell out.
    """
    kinds = []
    if not (_covered(rules, model, ontology) and _covered(model, rules, ontology)):
        kinds.append(CATEGORY)
    certainties, others = _values(rules, "certainty"), _values(model, "certainty")
    shared = certainties.keys() & others.keys()
    if any(certainties[category] != others[category] for category in shared):
        kinds.append(CERTAINTY)
    sides, other_sides = (_values(_asserted(rows), "laterality") for rows in (rules, model))
    if any(sides[category] != other_sides[category] for category in sides.keys() & other_sides.keys()):
        kinds.append(SIDE)
    return kinds


def _asserted(rows: Sequence[FindingRow]) -> list[FindingRow]:
    return [row for row in rows if row["certainty"] != Certainty.ABSENT]


def _covered(rows: Sequence[FindingRow], by: Sequence[FindingRow], ontology: Ontology) -> bool:
    known = {row["category"] for row in by}
    near = known.union(*(ontology.ancestors(c) | ontology.descendants(c) for c in known)) if known else known
    return all(row["category"] in near for row in _asserted(rows))


def _values(rows: Sequence[FindingRow], slot: str) -> dict[str, set[str | None]]:
    values: dict[str, set[str | None]] = {}
    for row in rows:
        values.setdefault(row["category"], set()).add(None if row[slot] is None else str(row[slot]))
    return values
