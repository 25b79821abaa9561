"""Cuts in a text file between two records, so that several workers can read it.

A line of JSON ends with its line. A record of CSV may hold line breaks inside quotes: the file is scanned once, and a
cut is made only where a quoted field is surely not open. The scan follows the rule of readers of CSV: a quote opens a
field only at the field's start, and two quotes inside are one.
"""

from __future__ import annotations

import re
from typing import BinaryIO

PART_BYTES = 32 << 20
_BLOCK = 4 << 20


def jsonl_cuts(stream: BinaryIO, size: int, *, part_bytes: int = PART_BYTES) -> list[int]:
    """Return the offsets at which parts of a JSONL file begin, in order, from 0."""
    cuts = [0]
    while cuts[-1] + part_bytes < size:
        at = cuts[-1] + part_bytes
        stream.seek(at)
        found = -1
        while found < 0:
            block = stream.read(_BLOCK)
            if not block:
                return cuts
            found = block.find(b"\n")
            at += found + 1 if found >= 0 else len(block)
        if at >= size:
            return cuts
        cuts.append(at)
    return cuts


def csv_cuts(stream: BinaryIO, delimiter: str, *, part_bytes: int = PART_BYTES, block: int = _BLOCK) -> list[int]:
    """Return the offsets at which parts of a CSV file begin, in order, from 0; the stream is read once to its end."""
    opening = re.compile(b"[\r\n" + re.escape(delimiter.encode()) + b']"')
    cuts, wanted = [0], part_bytes
    # A line break in front of the file stands for its start; one byte stays behind for quotes at a block's border.
    data, base, quoted = b"\n", -1, False
    while True:
        more = stream.read(block)
        data += more
        at, end = 0, len(data) if not more else len(data) - 1
        while at < end:
            if quoted:
                close = data.find(b'"', at, end)
                if close < 0:
                    at = end
                elif data[close + 1 : close + 2] == b'"':
                    at = close + 2
                else:
                    quoted, at = False, close + 1
                continue
            match = opening.search(data, at - 1 if at else 0, end + 1)
            stop = match.end() - 1 if match else end
            while base + stop > wanted:
                line = data.find(b"\n", max(at, wanted - base), stop)
                if line < 0:
                    break
                cuts.append(base + line + 1)
                wanted = cuts[-1] + part_bytes
            quoted, at = match is not None, match.end() if match else end
        if not more:
            total = base + len(data)
            return [cut for cut in cuts if cut < total or cut == 0]
        base, data = base + at - 1, data[at - 1 :]
        if quoted or data[:1] != b"\n":
            # The byte kept behind must not look like the start of a field unless it is one.
            data = (b"x" if quoted else data[:1]) + data[1:]
