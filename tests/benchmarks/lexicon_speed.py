"""How fast the rules are: raw report text → Arrow columns on one core, without a sentence cache, beside peers.

Usage: ``python -m tests.benchmarks.lexicon_speed [--data FOLDER] [--medspacy PYTHON] [--out OUT.json]``. With the real
data (``MEDFILIP_DATA``) the peers of its scoring folder run on the same reports in the same run, the medspaCy peer with
the interpreter of an environment of its own; without it, synthetic reports are read and there is no peer.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.extraction.engine import results_table
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.phantom.text import write_report
from medfilip.reports.sections import join_sections, split_sections
from medfilip.reports.sentences import report_sentences
from tests.benchmarks.environment import write_result

_PARTS = ("indication", "comparison", "findings", "impression")
_REPEATS = 5


def extract_columns(engine: LexiconEngine, texts: list[str]) -> pa.Table:
    """Read every sentence of every report anew and return the columns of ``sentence_findings``."""
    ids: list[int] = []
    results = []
    for text in texts:
        for sentence in report_sentences(text, split_sections(text)):
            ids.append(sentence.sentence_id)
            results.append(engine.extract(sentence.text, sentence.context))
    return results_table(pa.chunked_array([pa.array(ids, pa.int64())]), engine.name, results)


def measure(texts: list[str]) -> dict[str, Any]:
    """Return reports per second, the best of several repetitions and their median."""
    engine = LexiconEngine()
    extract_columns(engine, texts[:200])  # words are folded once
    gc.collect()
    gc.freeze()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        table = extract_columns(engine, texts)
        seconds.append(time.perf_counter() - start)
    return {
        "reports": len(texts),
        "sentences": table.num_rows,
        "reports_per_second": round(len(texts) / min(seconds)),
        "reports_per_second_median": round(len(texts) / float(np.median(seconds))),
        "microseconds_per_sentence": round(min(seconds) / table.num_rows * 1e6, 1),
    }


def peer(python: str, script: Path, reports: Path) -> dict[str, Any]:
    """Run a peer of the scoring folder on the reports; it prints its own reports per second."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, str(script), str(reports), f"{folder}/out.parquet"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"([\d.]+) reports/s", done.stdout)
    assert found is not None, done.stdout
    return {"reports_per_second": round(float(found[1]))}


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("MEDFILIP_DATA"))
    parser.add_argument("--medspacy", help="interpreter of an environment with medspacy")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not given.data:
        rng = np.random.default_rng(0)
        texts = [write_report((), rng)[0] for _ in range(2000)]
        write_result(given.out, {"corpus": "synthetic", "lexicon": measure(texts)})
        return
    reports = Path(given.data) / "openi" / "open" / "reports.parquet"
    rows = pq.read_table(reports, columns=list(_PARTS)).to_pylist()
    texts = [join_sections({name: row[name] for name in _PARTS})[0] for row in rows]
    peers = Path(given.data) / "openi" / "scoring" / "peers"
    result: dict[str, Any] = {"corpus": "openi/open", "lexicon": measure(texts)}
    result["negex_regex"] = peer(sys.executable, peers / "negex_regex.py", reports)
    if given.medspacy:
        result["medspacy"] = peer(given.medspacy, peers / "medspacy_peer.py", reports)
    own = result["lexicon"]["reports_per_second"]
    result["times_as_fast_as"] = {
        name: round(own / result[name]["reports_per_second"], 2)
        for name in ("negex_regex", "medspacy")
        if name in result
    }
    write_result(given.out, result)


if __name__ == "__main__":
    main()
