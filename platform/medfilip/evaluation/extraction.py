"""How well predicted mentions agree with the truth: by slot and by category, with intervals over reports.

Mentions of one report are paired first: within a category, pairs that agree in more slots go first, and each mention
is used once. Then

- ``mention`` counts a pair as right whatever its slots,
- ``certainty`` counts it as right if present, absent or uncertain agree as well,
- ``severity``, ``laterality``, ``change`` … count filled slots: right if both sides of a pair hold the same value,
- ``sites`` counts single sites,
- ``exact`` asks for every slot,
- a category's own row counts category and certainty together.

Legend of tensor names: R reports, K counted keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.metrics import DEFAULT_RESAMPLES, Interval
from medfilip.findings.ontology import load_ontology

Row = Mapping[str, object]
Counts = NDArray[np.int64]

VALUE_SLOTS = ("severity", "laterality", "change")
_RIGHT, _PREDICTED, _TRUE = range(3)


class Agreement(BaseModel):
    """Precision, recall and F1 of one slot or category; a number without any case behind it is missing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    predicted: int
    true: int
    right: int
    precision: Interval | None
    recall: Interval | None
    f1: Interval | None


class ExtractionResult(BaseModel):
    """Agreement by slot and by category."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reports: int
    resamples: int
    slots: dict[str, Agreement]
    categories: dict[str, Agreement]


def evaluate_extraction(
    predicted: Sequence[Row],
    truth: Sequence[Row],
    reports: Sequence[str],
    *,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> ExtractionResult:
    """Compare mentions with the truth.

    Parameters
    ----------
    predicted, truth
        Rows with ``report_id`` and the slots of a `Finding`.
    reports
        All reports that were read: those without any mention count in the intervals too.
    resamples, seed
        Of the bootstrap over reports.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without reports; ``SCHEMA_MISMATCH`` if a row belongs to none of the reports.
    """
    if not reports:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA, "There is no report to evaluate.", fix="Check the split that is evaluated."
        )
    found, expected = _by_report(predicted, reports), _by_report(truth, reports)
    categories = sorted({str(row["category"]) for row in (*predicted, *truth)})
    slots = ("mention", "certainty", *VALUE_SLOTS, "sites", "exact")
    keys = {key: at for at, key in enumerate((*slots, *(f"category {name}" for name in categories)))}
    counts_RK3 = np.zeros((len(reports), len(keys), 3), dtype=np.int64)
    for position, report in enumerate(reports):
        _count_report(found[report], expected[report], counts_RK3[position], keys)
    totals_BK3 = _resampled_totals(counts_RK3, resamples, seed)
    results = {key: _agreement(counts_RK3[:, at].sum(axis=0), totals_BK3[:, at]) for key, at in keys.items()}
    return ExtractionResult(
        reports=len(reports),
        resamples=resamples,
        slots={key: results[key] for key in slots},
        categories={name: results[f"category {name}"] for name in categories},
    )


def pair_mentions(predicted: Sequence[Row], truth: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pair mentions of one report within each category, the best agreement first; ties go by position."""
    candidates = [
        (-_shared_slots(a, b), i, j)
        for i, a in enumerate(predicted)
        for j, b in enumerate(truth)
        if a["category"] == b["category"]
    ]
    used_predicted: set[int] = set()
    used_truth: set[int] = set()
    pairs: list[tuple[Row, Row]] = []
    for _, i, j in sorted(candidates):
        if i not in used_predicted and j not in used_truth:
            used_predicted.add(i)
            used_truth.add(j)
            pairs.append((predicted[i], truth[j]))
    return pairs


def _by_report(rows: Sequence[Row], reports: Sequence[str]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[str(row["report_id"])].append(row)
    stray = len(grouped.keys() - set(reports))
    if stray:
        raise MedfilipError(
            ErrorCode.SCHEMA_MISMATCH,
            f"Mentions of {stray} reports belong to none of the {len(reports)} evaluated reports.",
            fix="Give mentions and truth of the same reports.",
        )
    return grouped


def _count_report(predicted: list[Row], truth: list[Row], counts_K3: Counts, keys: Mapping[str, int]) -> None:
    def add(key: str, kind: int, number: int = 1) -> None:
        counts_K3[keys[key], kind] += number

    for kind, rows in ((_PREDICTED, predicted), (_TRUE, truth)):
        for row in rows:
            for key in ("mention", "certainty", "exact", f"category {row['category']}"):
                add(key, kind)
            for slot in VALUE_SLOTS:
                add(slot, kind, int(bool(row.get(slot))))
            add("sites", kind, len(_sites(row)))
    for a, b in pair_mentions(predicted, truth):
        add("mention", _RIGHT)
        if a["certainty"] == b["certainty"]:
            add("certainty", _RIGHT)
            add(f"category {a['category']}", _RIGHT)
        for slot in VALUE_SLOTS:
            add(slot, _RIGHT, int(bool(a.get(slot)) and a.get(slot) == b.get(slot)))
        add("sites", _RIGHT, len(_sites(a) & _sites(b)))
        add("exact", _RIGHT, int(_shared_slots(a, b) == len(VALUE_SLOTS) + 2))


def _shared_slots(a: Row, b: Row) -> int:
    equal = [a["certainty"] == b["certainty"], _sites(a) == _sites(b)]
    equal += [(a.get(slot) or None) == (b.get(slot) or None) for slot in VALUE_SLOTS]
    return sum(equal)


def _sites(row: Row) -> frozenset[str]:
    """Return the sites a row names beyond those that its category implies ("heart" of cardiomegaly)."""
    sites = row.get("sites") or ()
    assert isinstance(sites, Sequence)
    category = load_ontology().categories.get(str(row["category"]))
    implied = {"lung", "chest", *(category.implied_sites if category else ())}
    return frozenset(str(site) for site in sites if site not in implied)


def _resampled_totals(counts_RK3: Counts, resamples: int, seed: int) -> Counts:
    """Sum the counts over resampled reports, all keys at once; [B, K, 3]."""
    reports = len(counts_RK3)
    weights_BR = np.random.default_rng(seed).multinomial(reports, np.full(reports, 1 / reports), size=resamples)
    totals_BK3: Counts = np.einsum("br,rkc->bkc", weights_BR, counts_RK3, optimize=True)
    return totals_BK3


def _agreement(total_3: Counts, resampled_B3: Counts) -> Agreement:
    def ratio(numerator: Counts, denominator: Counts) -> Interval | None:
        """Take a ratio of sums of counts given by their multipliers."""
        if not total_3 @ denominator:
            return None
        below_B = resampled_B3 @ denominator
        drawn = (resampled_B3 @ numerator)[below_B > 0] / below_B[below_B > 0]
        value = float(total_3 @ numerator / (total_3 @ denominator))
        if len(drawn) < 0.9 * len(resampled_B3) or not len(drawn):
            return Interval(value=value)
        low, high = np.percentile(drawn, (2.5, 97.5))
        return Interval(value=value, low=float(low), high=float(high))

    right, twice = np.array([1, 0, 0]), np.array([2, 0, 0])
    return Agreement(
        predicted=int(total_3[_PREDICTED]),
        true=int(total_3[_TRUE]),
        right=int(total_3[_RIGHT]),
        precision=ratio(right, np.array([0, 1, 0])),
        recall=ratio(right, np.array([0, 0, 1])),
        f1=ratio(twice, np.array([0, 1, 1])),
    )
