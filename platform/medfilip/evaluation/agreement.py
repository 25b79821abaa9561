"""Agreement with annotators at the level of a report, with intervals over reports.

Findings of a report are compared as sets:

- ``category``: micro and macro F1 over categories; *lenient* also credits a direct parent or child;
- ``side``, ``region``, ``severity``: F1 over (category, value) pairs, so that an attribute too many costs as much as
  one too few; both sides count as left and right, generic and implied sites are left out, severities and sizes fold
  into low, moderate and high;
- ``triplet``: findings matched one to one whose side and folded severity are equal and whose regions overlap;
- ``normal``: the share of reports annotated as normal in which nothing is stated as present.

Legend of tensor names: N reports, C categories, K counted keys, B resamples; 3 stands for right, predicted, true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.mesh import scored_categories
from medfilip.evaluation.metrics import DEFAULT_RESAMPLES, Interval
from medfilip.findings.ontology import Ontology

Counts = NDArray[np.int64]
Row = Mapping[str, Any]

MIN_MACRO_REPORTS = 10
FOLDED = {
    **dict.fromkeys(("borderline", "minimal", "mild", "tiny", "small"), "low"),
    **dict.fromkeys(("moderate", "medium"), "moderate"),
    **dict.fromkeys(("severe", "large"), "high"),
}
_GENERIC_REGIONS = frozenset(("lung", "chest", "multilobar"))
_SIDED = {"lingula": "left", "middle_lobe": "right"}
_ABNORMAL = frozenset(("finding", "diagnosis", "benign", "degenerative"))
_PAIRS = ("side", "region", "severity")


@dataclass(frozen=True)
class Atom:
    """A finding as it is compared; sites only keep apart what differs in nothing else."""

    category: str
    sides: frozenset[str]
    sites: frozenset[str]
    regions: frozenset[str]
    severity: str | None


@dataclass(frozen=True)
class ReportFindings:
    """What annotators and extractor say of one report; ``labels`` are the NIH-14 labels given, if any were."""

    report_id: str
    annotated: tuple[Atom, ...]
    predicted: tuple[Atom, ...]
    normal: bool
    labels: frozenset[str] | None = None


class CategoryAgreement(BaseModel):
    """Agreement in one category."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    right: int
    predicted: int
    annotated: int
    f1: Interval


class AgreementResult(BaseModel):
    """All numbers of a comparison; ``metrics`` names each as the module's text does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reports: int
    normal_reports: int
    resamples: int
    macro_categories: int
    metrics: dict[str, Interval]
    categories: tuple[CategoryAgreement, ...]
    labels: tuple[CategoryAgreement, ...]


class AtomReader:
    """Turns rows of findings into atoms; categories that are not annotated roll up or are left out."""

    def __init__(self, ontology: Ontology) -> None:
        self._ontology = ontology
        self.categories = tuple(category.id for category in scored_categories(ontology))
        self._scored = frozenset(self.categories)
        self._hidden = {name: {"lung", "chest", *ontology.categories[name].implied_sites} for name in self.categories}
        self._implied = {
            name: ontology.regions(ontology.categories[name].implied_sites) | _GENERIC_REGIONS
            for name in self.categories
        }

    def read(self, rows: Iterable[Row]) -> tuple[Atom, ...]:
        """Return the atoms of the findings that are stated as present."""
        atoms: dict[Atom, None] = {}
        for row in rows:
            if row["certainty"] == "present":
                for category in self._names(row["category"]):
                    atoms[self._atom(category, row)] = None
        return tuple(atoms)

    def _names(self, category: str) -> tuple[str, ...]:
        if category in self._scored:
            return (category,)
        entry = self._ontology.categories.get(category)
        rolled = entry.crosswalk.rollup_to if entry else ()
        return tuple(name for name in rolled if name in self._scored)

    def _atom(self, category: str, row: Row) -> Atom:
        sites = row.get("sites") or ()
        side = row.get("laterality") or next((_SIDED[site] for site in sites if site in _SIDED), None)
        sides = frozenset(("left", "right") if side == "bilateral" else (side,) if side else ())
        severity = FOLDED.get(row.get("severity") or "") or FOLDED.get(row.get("size") or "")
        shown = frozenset(site for site in sites if site not in self._hidden[category])
        return Atom(category, sides, shown, self._ontology.regions(sites) - self._implied[category], severity)


def evaluate_agreement(
    reports: Sequence[ReportFindings], ontology: Ontology, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> AgreementResult:
    """Compare an extractor with annotators.

    Parameters
    ----------
    reports
        One entry a report, also for those in which nothing was found.
    resamples, seed
        Of the bootstrap over reports.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without reports.
    """
    if not reports:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            "No report has annotations to compare with.",
            fix="Give a truth whose report_id are those of the extract run (ingest with keep_report_ids=true).",
        )
    return _Comparison(reports, ontology, resamples, seed).result()


class _Comparison:
    """Counts per report, summed over resampled reports."""

    def __init__(self, reports: Sequence[ReportFindings], ontology: Ontology, resamples: int, seed: int) -> None:
        self._reports = reports
        self._ontology = ontology
        self._categories = [category.id for category in scored_categories(ontology)]
        count = len(reports)
        weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
        # The first row weighs every report once: the value itself.
        self._weights_BN = np.vstack([np.ones((1, count), np.int64), weights]).astype(np.float64)

    def result(self) -> AgreementResult:
        by_category_NC3 = self._by_category()
        totals_BC3 = np.einsum("bn,nck->bck", self._weights_BN, by_category_NC3, optimize=True)
        frequent_C = totals_BC3[0, :, 2] >= MIN_MACRO_REPORTS
        metrics = self._category_metrics(totals_BC3, frequent_C)
        metrics |= {f"{name}_f1": _f1(self._sum(self._pairs(name))) for name in _PAIRS}
        metrics["triplet_f1"] = _f1(self._sum(_count(self._reports, _triplets)))
        normal_N2 = np.array([_clean(report, self._ontology) for report in self._reports], np.float64)
        if normal_N2[:, 1].any():
            metrics["normal_clean"] = _ratio(*(self._weights_BN @ normal_N2).T)
        labels = self._label_agreement(metrics)
        return AgreementResult(
            reports=len(self._reports),
            normal_reports=sum(report.normal for report in self._reports),
            resamples=len(self._weights_BN) - 1,
            macro_categories=int(frequent_C.sum()),
            metrics=metrics,
            categories=_rows(self._categories, totals_BC3),
            labels=labels,
        )

    def _sum(self, counts_N3: Counts) -> NDArray[np.float64]:
        return np.asarray(self._weights_BN @ counts_N3)

    def _by_category(self) -> Counts:
        position = {name: at for at, name in enumerate(self._categories)}
        counts_NC3 = np.zeros((len(self._reports), len(position), 3), np.int64)
        for number, report in enumerate(self._reports):
            annotated, predicted = ({atom.category for atom in atoms} for atoms in (report.annotated, report.predicted))
            for kind, names in enumerate((annotated & predicted, predicted, annotated)):
                for name in names:
                    counts_NC3[number, position[name], kind] = 1
        return counts_NC3

    def _category_metrics(self, totals_BC3: NDArray[np.float64], frequent_C: NDArray[np.bool_]) -> dict[str, Interval]:
        micro_B3 = totals_BC3.sum(1)
        metrics = {
            "category_precision": _ratio(micro_B3[:, 0], micro_B3[:, 1]),
            "category_recall": _ratio(micro_B3[:, 0], micro_B3[:, 2]),
            "category_micro_f1": _f1(micro_B3),
        }
        if frequent_C.any():
            chosen = totals_BC3[:, frequent_C]
            live = chosen[:, :, 2] > 0  # a resample may hold none of a rare category
            scores = 2 * chosen[:, :, 0] / np.maximum(chosen[:, :, 1] + chosen[:, :, 2], 1)
            metrics["category_macro_f1"] = _interval((scores * live).sum(1) / live.sum(1))
        lenient_B4 = self._weights_BN @ np.array([self._lenient(report) for report in self._reports], np.float64)
        precision, recall = lenient_B4[:, 0] / lenient_B4[:, 1].clip(1), lenient_B4[:, 2] / lenient_B4[:, 3].clip(1)
        metrics["category_lenient_f1"] = _interval(2 * precision * recall / (precision + recall).clip(1e-12))
        return metrics

    def _lenient(self, report: ReportFindings) -> tuple[int, int, int, int]:
        annotated, predicted = ({atom.category for atom in atoms} for atoms in (report.annotated, report.predicted))
        return (
            sum(bool(self._related(name) & annotated) for name in predicted),
            len(predicted),
            sum(bool(self._related(name) & predicted) for name in annotated),
            len(annotated),
        )

    def _related(self, category: str) -> frozenset[str]:
        """Return the category, its direct parents and its direct children."""
        categories = self._ontology.categories
        children = (name for name, entry in categories.items() if category in entry.parents)
        return frozenset((category, *categories[category].parents, *children))

    def _pairs(self, name: str) -> Counts:
        return _count(self._reports, lambda a, b: _set_counts(_values(a, name), _values(b, name)))

    def _label_agreement(self, metrics: dict[str, Interval]) -> tuple[CategoryAgreement, ...]:
        """Agreement in NIH-14 labels, where the truth gives any."""
        known = [number for number, report in enumerate(self._reports) if report.labels is not None]
        if not known:
            return ()
        names = sorted({label for number in known for label in self._reports[number].labels or ()})
        label_of = {name: entry.crosswalk.nih14 for name, entry in self._ontology.categories.items()}
        counts_NL3 = np.zeros((len(self._reports), len(names), 3), np.int64)
        for number in known:
            given = self._reports[number].labels or frozenset()
            found = {label_of[atom.category] for atom in self._reports[number].predicted}
            for at, name in enumerate(names):
                counts_NL3[number, at] = (name in given and name in found, name in found, name in given)
        totals_BL3 = np.einsum("bn,nlk->blk", self._weights_BN, counts_NL3, optimize=True)
        metrics["nih14_micro_f1"] = _f1(totals_BL3.sum(1))
        return _rows(names, totals_BL3)


def _rows(names: Sequence[str], totals_BK3: NDArray[np.float64]) -> tuple[CategoryAgreement, ...]:
    rows = [
        CategoryAgreement(
            category=name,
            right=int(totals_BK3[0, at, 0]),
            predicted=int(totals_BK3[0, at, 1]),
            annotated=int(totals_BK3[0, at, 2]),
            f1=_f1(totals_BK3[:, at]),
        )
        for at, name in enumerate(names)
        if totals_BK3[0, at, 1:].any()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.annotated, row.category)))


def _count(reports: Sequence[ReportFindings], compare: Any) -> Counts:
    return np.array([compare(report.annotated, report.predicted) for report in reports], np.int64).reshape(-1, 3)


def _set_counts(annotated: set[Any], predicted: set[Any]) -> tuple[int, int, int]:
    return len(annotated & predicted), len(predicted), len(annotated)


def _values(atoms: Sequence[Atom], name: str) -> set[tuple[str, str | None]]:
    """Return (category, value) pairs; a finding without a value gives (category, None)."""
    found: set[tuple[str, str | None]] = set()
    for atom in atoms:
        values = {"side": atom.sides, "region": atom.regions, "severity": frozenset((atom.severity,))}[name]
        found |= {(atom.category, value) for value in values or {None}}
    return found


def _triplets(annotated: Sequence[Atom], predicted: Sequence[Atom]) -> tuple[int, int, int]:
    """Match findings one to one (Kuhn's augmenting paths), as many as possible."""
    partners = [[j for j, b in enumerate(predicted) if _compatible(a, b)] for a in annotated]
    owner: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in partners[i]:
            if j not in seen:
                seen.add(j)
                if j not in owner or place(owner[j], seen):
                    owner[j] = i
                    return True
        return False

    return sum(place(i, set()) for i in range(len(annotated))), len(predicted), len(annotated)


def _compatible(a: Atom, b: Atom) -> bool:
    same = (a.category, a.sides, a.severity) == (b.category, b.sides, b.severity)
    return same and (bool(a.regions & b.regions) or not (a.regions or b.regions))


def _clean(report: ReportFindings, ontology: Ontology) -> tuple[int, int]:
    if not report.normal:
        return 0, 0
    return int(not any(ontology.categories[a.category].group in _ABNORMAL for a in report.predicted)), 1


def _f1(totals_B3: NDArray[np.float64]) -> Interval:
    return _ratio(2 * totals_B3[:, 0], totals_B3[:, 1] + totals_B3[:, 2])


def _ratio(numerator_B: NDArray[np.float64], denominator_B: NDArray[np.float64]) -> Interval:
    return _interval(np.divide(numerator_B, denominator_B, out=np.zeros_like(numerator_B), where=denominator_B > 0))


def _interval(values_B: NDArray[np.float64]) -> Interval:
    """Return the first value with the 95 % interval of the others."""
    if len(values_B) < 2:
        return Interval(value=float(values_B[0]))
    low, high = np.percentile(values_B[1:], (2.5, 97.5))
    return Interval(value=float(values_B[0]), low=float(low), high=float(high))
