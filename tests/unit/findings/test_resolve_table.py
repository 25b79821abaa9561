"""Resolution by columns: it finds what resolution report by report finds, row for row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from medfilip.findings.resolve import resolve_report
from medfilip.findings.resolve_table import resolve_mentions
from medfilip.storage.schemas import MENTIONS, RESOLVED_FINDINGS

sites = st.lists(st.sampled_from(["lung_base", "lung_apex", "lower_lobe", "hilum", "pleura"]), max_size=3)
evidence = st.builds(
    lambda start: [{"slot": "mention", "start": start, "end": start + 4}, {"slot": "site", "start": 0, "end": 2}],
    st.integers(0, 1),
)
mention = st.fixed_dictionaries(
    {
        "report_id": st.sampled_from(["r1", "r2", "r3"]),
        "category": st.sampled_from(["edema", "nodule", "Ärger", "zebra"]),
        "certainty": st.sampled_from(["present", "absent", "uncertain"]),
        "section": st.sampled_from(["findings", "impression", "addendum", "other", None]),
        "sentence_id": st.integers(0, 2),
        "laterality": st.sampled_from([None, "left", "right", "bilateral"]),
        "sites": st.none() | sites,
        "patterns": st.none() | st.lists(st.sampled_from(["focal", "diffuse"]), max_size=3),
        "evidence": evidence,
        "hedge": st.sampled_from([None, "probable"]),
        "severity": st.sampled_from([None, "mild", "severe"]),
        "size_mm": st.none() | st.floats(0, 99, width=32),
        "count": st.none() | st.integers(1, 9),
        "confidence": st.none() | st.floats(0, 1, width=32),
    }
)


def plainly(mentions: pa.Table) -> pa.Table:
    by_report: dict[str, list[dict[str, Any]]] = {}
    for row in mentions.to_pylist():
        by_report.setdefault(row["report_id"], []).append(row)
    return RESOLVED_FINDINGS.from_rows([row for found in by_report.values() for row in resolve_report(found)])


@settings(max_examples=120, deadline=None)
@given(st.lists(mention, max_size=12), st.integers(0, 2**32), st.integers(0, 12))
def test_columns_resolve_as_rows_do(rows: list[dict[str, Any]], seed: int, cut: int) -> None:
    ids = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, len(rows)).tolist()
    rows = [row | {"mention_id": at, "study_id": f"s{row['report_id']}"} for at, row in zip(ids, rows, strict=True)]
    mentions = pa.concat_tables([MENTIONS.from_rows(rows[:cut]), MENTIONS.from_rows(rows[cut:])])
    found = resolve_mentions(mentions)
    assert found.schema == RESOLVED_FINDINGS.arrow_schema()
    assert found.equals(plainly(mentions))


def test_nothing_mentioned_is_nothing_found() -> None:
    assert resolve_mentions(MENTIONS.empty()).equals(RESOLVED_FINDINGS.empty())
