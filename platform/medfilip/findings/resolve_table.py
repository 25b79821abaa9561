"""Resolution of many reports at once: `medfilip.findings.resolve` over the columns of a table.

Most categories are mentioned once in a report: then the mention is the finding, and whole columns are copied. Only what
is mentioned more than once goes through `resolve_report`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medfilip.core.ids import hash64_each
from medfilip.core.links import repeated
from medfilip.findings.ontology import Ontology, load_ontology
from medfilip.findings.resolve import LIST_SLOTS, resolve_report
from medfilip.storage.schemas import FINDING_SLOTS, RESOLVED_FINDINGS

_READ = (
    *("mention_id", "report_id", "study_id", "sentence_id", "section", "evidence", "confidence"),
    *(name for name, _ in FINDING_SLOTS),
)
"""What resolution reads of a mention."""

Places = npt.NDArray[np.int64]


def resolve_mentions(mentions: pa.Table, ontology: Ontology | None = None) -> pa.Table:
    """Resolve rows of ``mentions`` into rows of ``resolved_findings``, as `resolve_report` does report by report.

    Reports keep the order in which they are first mentioned.
    """
    if not mentions.num_rows:
        return RESOLVED_FINDINGS.empty()
    mentions = mentions.select(_READ)
    places = _places(mentions)
    alone = ~repeated(places)
    for slot in LIST_SLOTS:
        alone &= ~_to_tidy(mentions[slot].combine_chunks())
    rows, places_of_rows = _together(mentions.filter(pa.array(~alone)), places[~alone], ontology or load_ontology())
    found = pa.concat_tables([_alone(mentions.filter(pa.array(alone))), RESOLVED_FINDINGS.from_rows(rows)])
    order = np.argsort(np.concatenate([places[alone], places_of_rows]), kind="stable")
    return found.take(order)


def _places(mentions: pa.Table) -> Places:
    """Give one number to a report's mentions of a category; numbers ascend by report, then by category."""
    reports = mentions["report_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    categories = mentions["category"].combine_chunks().dictionary_encode()
    ranks = np.argsort(np.argsort(categories.dictionary.to_numpy(zero_copy_only=False)))
    places: Places = reports * len(ranks) + ranks[categories.indices.to_numpy()]
    return places


def _to_tidy(lists: pa.ListArray) -> npt.NDArray[np.bool_]:
    """Return which lists are null or hold a value twice: a finding's are neither."""
    found = np.asarray(lists.is_null().to_numpy(zero_copy_only=False), np.bool_)
    parents = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    values = pc.list_flatten(lists).dictionary_encode()
    found[parents[repeated(parents * (len(values.dictionary) + 1) + values.indices.to_numpy())]] = True
    return found


def _alone(mentions: pa.Table) -> pa.Table:
    """Return the findings of mentions that are each the only one of their category in their report."""
    count = mentions.num_rows
    ids = hash64_each(mentions["report_id"].to_pylist(), mentions["category"].to_pylist(), ["0"] * count)
    columns: dict[str, Any] = {name: mentions[name] for name in RESOLVED_FINDINGS.columns.names if name in _READ}
    columns["finding_id"] = pa.array(ids)
    columns["mention_ids"] = pa.ListArray.from_arrays(
        pa.array(np.arange(count + 1), pa.int32()), mentions["mention_id"].combine_chunks()
    )
    columns["conflict"] = pa.array(np.zeros(count, np.bool_))
    return RESOLVED_FINDINGS.conform(pa.table(columns))


def _together(
    mentions: pa.Table, places: Places, ontology: Ontology
) -> tuple[list[dict[str, Any]], npt.NDArray[np.int64]]:
    """Resolve the other mentions, and return the findings with the place of each."""
    by_place: dict[int, list[dict[str, Any]]] = {}
    for place, mention in zip(places.tolist(), mentions.to_pylist(), strict=True):
        by_place.setdefault(place, []).append(mention)
    resolved = {place: resolve_report(found, ontology) for place, found in by_place.items()}
    rows = [row for found in resolved.values() for row in found]
    return rows, np.array([place for place, found in resolved.items() for _ in found], np.int64)
