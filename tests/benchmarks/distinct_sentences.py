"""How many calls distinct sentences save: each is read once, however many reports it stands in.

Usage: ``python -m tests.benchmarks.distinct_sentences [--data FOLDER] [--phantoms 100000] [--out OUT.json]``. With the
real data (``MEDFILIP_DATA``) the reports of Open-I are counted; synthetic ones always are. Numbers alone are written.
The Heaps fit is ``distinct = k · sentences ** exponent``, by least squares over logarithms.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from medfilip.phantom.study import make_report
from medfilip.reports.sections import join_sections, split_sections
from medfilip.reports.sentences import report_sentences
from tests.benchmarks.environment import write_result

_PARTS = ("indication", "comparison", "findings", "impression")
_POINTS = 40
_FIT_FROM = 500


def measure(texts: Iterable[str]) -> dict[str, Any]:
    """Return distinct and all sentences, the share of calls saved, how it grows, and the Heaps fit."""
    seen: Counter[int] = Counter()
    growth: list[tuple[int, int, int]] = []
    sentences = reports = 0
    for text in texts:
        reports += 1
        for sentence in report_sentences(text, split_sections(text)):
            seen[sentence.sentence_id] += 1
            sentences += 1
        growth.append((reports, sentences, len(seen)))
    curve = np.array(growth, np.int64)
    at = np.unique(np.geomspace(1, len(curve), _POINTS).astype(int)) - 1
    once = sum(count == 1 for count in seen.values())
    tenths = [len(curve) * part // 10 - 1 for part in (1, 2, 5, 10)] if reports >= 10 else []
    return {
        "reports": reports,
        "sentences": sentences,
        "distinct": len(seen),
        "share_of_calls_saved": _share(sentences, len(seen)),
        "distinct_that_stand_once": round(once / max(1, len(seen)), 4),
        "share_of_calls_saved_by_reports": {
            int(curve[i][0]): _share(int(curve[i][1]), int(curve[i][2])) for i in tenths
        },
        "heaps": heaps_fit(curve[at][:, 1], curve[at][:, 2]),
    }


def _share(sentences: int, distinct: int) -> float:
    return round(1 - distinct / max(1, sentences), 4)


def heaps_fit(sentences: np.ndarray, distinct: np.ndarray) -> dict[str, float]:
    """Return factor and exponent of Heaps' law, and how well it fits."""
    held = sentences >= _FIT_FROM
    x, y = np.log(sentences[held]), np.log(distinct[held])
    exponent, factor = np.polyfit(x, y, 1)
    residual = y - (exponent * x + factor)
    spread = float(((y - y.mean()) ** 2).sum())
    return {
        "k": round(float(np.exp(factor)), 3),
        "exponent": round(float(exponent), 4),
        "r_squared": round(1 - float((residual**2).sum()) / spread, 5),
    }


def open_i_texts(data: Path) -> list[str]:
    """Return the reports of Open-I, their sections joined as a hospital would send them."""
    rows = pq.read_table(data / "openi" / "open" / "reports.parquet", columns=list(_PARTS)).to_pylist()
    return [join_sections({name: row[name] for name in _PARTS})[0] for row in rows]


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDFILIP_DATA"))
    parser.add_argument("--phantoms", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {}
    if given.data:
        result["openi"] = measure(open_i_texts(Path(given.data)))
        few = (make_report(given.seed, index).text for index in range(result["openi"]["reports"]))
        result["phantoms_as_many"] = measure(few)
    result["phantoms"] = measure(make_report(given.seed, index).text for index in range(given.phantoms))
    write_result(given.out, result)


if __name__ == "__main__":
    main()
