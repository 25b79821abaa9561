"""Memory of ingest's driver while it looks over all parts: what it holds and what it takes at its peak, by reports.

Usage: ``python -m tests.benchmarks.look_over_memory [--reports 10000 100000 1000000] [--out OUT.json]``. The indexes
that workers would write are made up: three studies a patient, a quarter of the texts shared with others, one report in
twenty an addendum; then the same with an image for each study, which names no patient. Each size is looked over in a
process of its own, without Ray.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from medfilip.core.ids import pseudonym
from medfilip.storage.location import Location
from medfilip.storage.schemas import IMAGES, REPORTS
from pipelines.images import FILES_PER_PART
from pipelines.ingest import SplitShares, plan_publishing
from pipelines.reports import PIECE_ROWS
from pipelines.row_index import IndexRow, write_index
from tests.benchmarks.environment import write_result

_KEY = b"benchmark"
_STUDIES_OF_PATIENT = 3
_ADDENDA = 0.05
_SHARED_TEXTS, _TEMPLATES = 0.25, 0.01
_EVERY_S = 0.005


def make_reports(count: int, seed: int) -> Iterator[IndexRow]:
    """Yield index rows of reports."""
    generator = random.Random(seed)
    study = -1
    for number in range(count):
        is_addendum = number > 0 and generator.random() < _ADDENDA
        study += not is_addendum
        shared = not is_addendum and generator.random() < _SHARED_TEXTS
        text = f"template {generator.randrange(int(count * _TEMPLATES) + 1)}" if shared else f"text {number}"
        yield IndexRow(
            f"report-{number:09d}",
            pseudonym(_KEY, "patient", str(study // _STUDIES_OF_PATIENT)),
            pseudonym(_KEY, "study", str(study)),
            hashlib.sha256(text.encode()).hexdigest(),
            None,
            "addendum" if is_addendum else "report",
        )


def make_images(studies: list[str]) -> Iterator[IndexRow]:
    """Yield index rows of images: one a study, whose patient is known from its report alone."""
    for number, study in enumerate(studies):
        content = hashlib.sha256(f"image {number}".encode()).hexdigest()
        yield IndexRow(pseudonym(_KEY, "image", str(number)), pseudonym(_KEY, "patient", study), study, content, None)


def write_pieces(
    folder: Path, name: str, rows: Iterator[IndexRow], size: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the indexes of a dataset; returns its pieces as workers record them, and its studies."""
    pieces: list[dict[str, Any]] = []
    studies: dict[str, None] = {}
    held: list[IndexRow] = []

    def write() -> None:
        path = f"part-{len(pieces):05d}.parquet"
        write_index(Location.parse(folder / f"{name}_index" / path), held, _KEY)
        pieces.append({"path": path, "rows": len(held)})
        studies.update(dict.fromkeys(row.study for row in held))
        held.clear()

    for row in rows:
        held.append(row)
        if len(held) == size:
            write()
    if held:
        write()
    return pieces, list(studies)


@contextmanager
def sampled(peak: list[int]) -> Iterator[None]:
    """Append the private memory of this process, in bytes, again and again while what is inside runs."""
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(_EVERY_S):
            peak.append(private())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        peak.append(private())


def private() -> int:
    """Return this process's memory that is not shared, in bytes."""
    info = psutil.Process().memory_info()
    return int(info.rss - info.shared)


def look(folder: Path) -> dict[str, float]:
    """Look over the indexes in a folder; returns seconds and private memory, over what the process had before."""
    staging = Location.parse(folder)
    pieces = json.loads((folder / "pieces.json").read_text(encoding="utf-8"))
    few = {REPORTS: pieces["reports"][:1], IMAGES: pieces["images"][:1]}
    plan_publishing(staging, few, SplitShares())  # libraries are loaded with the first rows
    gc.collect()
    before, peak = private(), [0]
    begun = time.monotonic()
    with sampled(peak):
        tasks, _ = plan_publishing(staging, {REPORTS: pieces["reports"], IMAGES: pieces["images"]}, SplitShares())
        seconds = time.monotonic() - begun
    assert tasks[REPORTS]
    return {
        "seconds": round(seconds, 2),
        "before_mb": before >> 20,
        "peak_mb": (max(peak) - before) >> 20,
        "held_mb": (private() - before) >> 20,
    }


def measure(reports: int, seed: int, *, images: bool) -> dict[str, Any]:
    """Make the indexes of a corpus, and look over them in another process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pieces, studies = write_pieces(folder, "reports", make_reports(reports, seed), PIECE_ROWS)
        found = write_pieces(folder, "images", make_images(studies), FILES_PER_PART)[0] if images else []
        (folder / "pieces.json").write_text(json.dumps({"reports": pieces, "images": found}), encoding="utf-8")
        program = [sys.executable, "-m", "tests.benchmarks.look_over_memory", "--look", name]
        ended = subprocess.run(program, check=True, capture_output=True, text=True)
    result = json.loads(ended.stdout)
    rows = reports + (len(studies) if images else 0)
    return {"reports": reports, "rows": rows, **result, "peak_bytes_a_row": round((result["peak_mb"] << 20) / rows)}


def main() -> None:
    """Measure each size, and write JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--look", type=Path, help="look over the indexes in this folder, and nothing else")
    given = parser.parse_args()
    if given.look:
        print(json.dumps(look(given.look)))
        return
    sizes: list[dict[str, Any]] = []
    for images in (False, True):
        for reports in given.reports:
            sizes.append({"images": images, **measure(reports, given.seed, images=images)})
            write_result(given.out, {"corpus": "made up", "sizes": sizes})


if __name__ == "__main__":
    main()
