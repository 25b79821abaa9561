"""Findings in the shape that scorers of the Indiana University collection read: one row a finding, one severity slot.

The collection's annotation has one slot for how much: "mild", "moderate", "severe" and "small", "large" alike
(Demner-Fushman et al., JAMIA 2016), and no category for what the ontology rolls up. Nothing else is changed, unless an
export profile asks for it: extraction follows the text, not annotators' habits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from medfilip.evaluation.profile import Profile
from medfilip.findings.ontology import Ontology

Row = Mapping[str, Any]

SCHEMA = pa.schema(
    [
        ("report_id", pa.string()),
        ("category", pa.string()),
        ("certainty", pa.string()),
        ("severity", pa.string()),
        ("laterality", pa.string()),
        ("sites", pa.list_(pa.string())),
        ("confidence", pa.float32()),
    ]
)
COLUMNS = tuple(SCHEMA.names)
_SIZES = {"medium": "moderate"}


def predictions(resolved: Iterable[pa.Table], ontology: Ontology, profile: Profile | None = None) -> Iterator[pa.Table]:
    """Turn tables of ``resolved_findings`` into tables of predictions (`SCHEMA`); reports must not be cut in two."""
    for table in resolved:
        by_report: dict[str, list[Row]] = {}
        for row in table.to_pylist():
            by_report.setdefault(row["report_id"], []).append(row)
        rows = [
            prediction
            for found in by_report.values()
            for finding in (profile.apply(found) if profile else found)
            for prediction in _predictions(finding, ontology)
        ]
        yield pa.Table.from_pylist(rows, schema=SCHEMA)


def _predictions(finding: Row, ontology: Ontology) -> Iterator[dict[str, Any]]:
    size = finding["size"]
    severity = finding["severity"] or _SIZES.get(size, size)
    for category in _names(finding["category"], ontology):
        yield {name: finding[name] for name in COLUMNS} | {"category": category, "severity": severity}


def _names(category: str, ontology: Ontology) -> Sequence[str]:
    """Return what a category counts as: a hydropneumothorax is an effusion and a pneumothorax, a PICC a catheter."""
    entry = ontology.categories.get(category)
    return (entry.crosswalk.rollup_to if entry else ()) or (category,)
