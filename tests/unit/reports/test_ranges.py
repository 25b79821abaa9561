"""Cuts in text files: records stay whole, and together the parts are the file."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from medfilip.reports.ranges import csv_cuts, jsonl_cuts

PIECES = st.lists(st.sampled_from(['"', '""', "\n", "\r\n", ",", "a", '","', '"\n', "long text"]), max_size=60)


def rows(raw: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(raw, newline="")))


@given(PIECES, st.integers(1, 12), st.integers(1, 9))
def test_parts_of_csv_hold_the_records_of_the_whole(pieces: list[str], part_bytes: int, block: int) -> None:
    raw = "".join(pieces)
    cuts = csv_cuts(io.BytesIO(raw.encode()), ",", part_bytes=part_bytes, block=block)
    parts = [raw[begin:end] for begin, end in zip(cuts, [*cuts[1:], len(raw)], strict=True)]
    assert "".join(parts) == raw
    assert [row for part in parts for row in rows(part)] == rows(raw)


def test_a_line_break_in_quotes_is_no_cut() -> None:
    raw = b'id,text\n1,"a\nb\nc"\n2,"d ""quoted""\n"\n3,e\n'
    assert csv_cuts(io.BytesIO(raw), ",", part_bytes=1) == [0, 8, 18, 36]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 40))
def test_parts_of_json_lines_end_with_lines(lengths: list[int], part_bytes: int) -> None:
    raw = b"\n".join(b"x" * length for length in lengths)
    cuts = jsonl_cuts(io.BytesIO(raw), len(raw), part_bytes=part_bytes)
    assert cuts == sorted(set(cuts)) and cuts[0] == 0
    assert all(raw[cut - 1 : cut] == b"\n" for cut in cuts[1:])
