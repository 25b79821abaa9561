"""What is known of the labels of studies: what their reports state, or what was drawn or annotated.

Evaluation, calibration and fine-tuning ask the same truth. What nobody knows is `UNKNOWN`: it is masked out of losses
and metrics, never counted as absent.

Legend of tensor names: N images, L labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medfilip.evaluation.fine_grained import Detail
from medfilip.evaluation.metrics import Ints
from medfilip.findings.codes import SIZE_AS_SEVERITY, Codebook, FindingCode
from medfilip.findings.finding import Certainty, Laterality
from medfilip.findings.ontology import Ontology
from medfilip.findings.truth import ABSENT, PRESENT, UNKNOWN, category_truth
from medfilip.knowledge.slots import SIDES

COLUMNS = ("study_id", "category", "certainty", "severity", "size", "laterality", "sites")
"""Columns of ``resolved_findings`` that the truth is made from."""


@dataclass(frozen=True)
class Shown:
    """Whether a study shows a category, and how."""

    present: bool
    detail: Detail = field(default_factory=Detail)


@dataclass(frozen=True)
class Truth:
    """What is known of each study.

    Attributes
    ----------
    findings
        Study → rows of its resolved findings.
    shown
        Study → category → whether it shows it, drawn by a generator or annotated. Where there is any it decides, and
        what is not in it is unknown.
    silent
        What the silence of a study's findings means: `UNKNOWN`, or `ABSENT` where they list everything there is.
    lacks
        Part of an evaluation → why this truth has nothing to measure it by.
    """

    ontology: Ontology
    findings: Mapping[str, Sequence[Mapping[str, object]]]
    shown: Mapping[str, Mapping[str, Shown]] = field(default_factory=dict)
    silent: int = UNKNOWN
    lacks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Iterable[Mapping[str, object]],
        ontology: Ontology,
        shown: Mapping[str, Mapping[str, Shown]] | None = None,
        *,
        silent: int = UNKNOWN,
    ) -> Truth:
        """Collect rows with `COLUMNS` by study."""
        findings: dict[str, list[Mapping[str, object]]] = defaultdict(list)
        for row in rows:
            findings[str(row["study_id"])].append(row)
        return cls(ontology, dict(findings), shown or {}, silent)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories that anything is known about, sorted."""
        if self.shown:
            return tuple(sorted({name for study in self.shown.values() for name in study}))
        said = {str(row["category"]) for rows in self.findings.values() for row in rows}
        return tuple(sorted(said & set(self.ontology.categories)))

    def state(self, study: str, category: str, view: str | None = None) -> int:
        """Return 1, 0 or -1 (unknown) for an image of a study; unknown in a view that cannot show the category."""
        known = self.ontology.categories.get(category)
        if known is not None and view in ("frontal", "lateral") and view not in known.views:
            return UNKNOWN
        if self.shown:
            found = self.shown.get(study, {}).get(category)
            return UNKNOWN if found is None else PRESENT if found.present else ABSENT
        if study not in self.findings:
            return UNKNOWN  # no report was read of it: that is not silence
        said = [(str(row["category"]), str(row["certainty"])) for row in self.findings[study]]
        return category_truth(said, category, self.ontology, silent=self.silent)

    def states(self, studies: Sequence[str], views: Sequence[str | None], labels: Sequence[str]) -> Ints:
        """Return `state` of every image and label, int64 [N, L]."""
        found = [
            [self.state(study, label, view) for label in labels] for study, view in zip(studies, views, strict=True)
        ]
        return np.array(found, np.int64).reshape(len(studies), len(labels))

    def details(self, study: str) -> dict[str, Detail]:
        """Return what is known of each category that a study shows."""
        if self.shown:
            return {name: item.detail for name, item in self.shown.get(study, {}).items() if item.present}
        present: dict[str, list[Mapping[str, object]]] = defaultdict(list)
        for row in self.findings.get(study, ()):
            if row["certainty"] == Certainty.PRESENT:
                present[str(row["category"])].append(row)
        return {category: _detail(rows) for category, rows in present.items()}

    def codes(self, study: str, codebook: Codebook) -> list[FindingCode]:
        """Return the codes of the findings that a study's report states, within the ontology."""
        found = (codebook.encode(row) for row in self.findings.get(study, ()))
        return [code for code in found if code is not None]


def _detail(rows: Sequence[Mapping[str, object]]) -> Detail:
    """Join the present findings of one category: both sides are bilateral, and what differs is not known."""
    sides = {str(row["laterality"]) for row in rows if row["laterality"]}
    grades = {row["severity"] or SIZE_AS_SEVERITY.get(str(row["size"])) for row in rows}
    sites = {str(site) for row in rows for site in _strings(row["sites"])}
    side = sides.pop() if len(sides) == 1 else str(Laterality.BILATERAL) if set(SIDES) <= sides else None
    grade = grades.pop() if len(grades) == 1 else None
    return Detail(side, str(grade) if grade else None, tuple(sorted(sites)))


def _strings(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()
