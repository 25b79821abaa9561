"""What every engine's table holds to: one row in, one row out, and a bound on what a row may cost."""

from __future__ import annotations

import pyarrow as pa

from medfilip.core.errors import ErrorCode
from medfilip.extraction.engine import LONGEST_SENTENCE, OK, extract_table
from medfilip.extraction.lexicon import LexiconEngine


def test_a_sentence_nobody_would_write_costs_its_row_and_no_time() -> None:
    # The rules take a minute for four thousand words without a full stop.
    endless = "no small effusion or mass and " * 4000
    longest = ("small effusion " * LONGEST_SENTENCE)[:LONGEST_SENTENCE]
    table = pa.table(
        {
            "sentence_id": pa.array([1, 2, 3, 4], pa.int64()),
            "text": ["small effusion", endless, "it is larger", longest],
            "context": [None, None, endless, None],
        }
    )
    found = extract_table(LexiconEngine(), table)
    too_long = ErrorCode.SENTENCE_TOO_LONG
    assert found["sentence_id"].to_pylist() == [1, 2, 3, 4]
    assert found["status"].to_pylist() == [OK, too_long, too_long, OK]
    assert [len(findings) > 0 for findings in found["findings"].to_pylist()] == [True, False, False, True]
