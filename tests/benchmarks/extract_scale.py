"""The whole job at scale: ingest and extract synthetic reports with the rules, beside the bare engine in a plain loop.

Usage: ``python -m tests.benchmarks.extract_scale [--reports 10000 100000] [--folder FOLDER] [--out OUT.json]``. Each
size runs as a user runs it: one command a job, a local cluster of its own. Memory is sampled over all processes of the
job: resident, and private (what is not shared, as the object store is). Then the same distinct sentences are read by
the engine alone, in as many processes as the job uses, without Ray, files or Arrow.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from medfilip.extraction.lexicon import LexiconEngine
from medfilip.phantom.corpus import write_reports
from medfilip.storage.manifest import MANIFEST_NAME
from tests.benchmarks.environment import write_result
from tests.chaos.driver import Driver, RayFiles

_EVERY_S = 0.5
_LIMIT_S = 4 * 3600.0
_WARM = 300


class Memory:
    """Peak memory of a driver and of its workers, in MB, over the processes of one cluster."""

    def __init__(self) -> None:
        self.peak: dict[str, int] = {}
        self._stop = threading.Event()

    @contextmanager
    def watched(self, driver: Driver) -> Iterator[None]:
        """Sample while what is inside runs."""
        thread = threading.Thread(target=self._watch, args=(driver,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _watch(self, driver: Driver) -> None:
        while not self._stop.wait(_EVERY_S):
            workers = [_memory(process) for process in driver.workers()]
            own = _memory(psutil.Process(driver.process.pid))
            sampled = {"driver_resident": own[0], "driver_private": own[1]}
            if workers:
                sampled |= {
                    "worker_resident": max(resident for resident, _ in workers),
                    "worker_private": max(private for _, private in workers),
                    "all_workers_private": sum(private for _, private in workers),
                }
            self.peak = {name: max(value, self.peak.get(name, 0)) for name, value in (self.peak | sampled).items()}


def _memory(process: psutil.Process) -> tuple[int, int]:
    try:
        info = process.memory_info()
    except psutil.Error:
        return 0, 0
    return info.rss >> 20, (info.rss - info.shared) >> 20


def run_job(job: str, *arguments: str, root: Path) -> tuple[Path, dict[str, Any]]:
    """Run a job as a command; returns its run's folder, and its seconds and memory."""
    ray_files, memory = RayFiles(), Memory()
    begun = time.monotonic()
    try:
        command = [job, *arguments, f"root={root}"]
        driver = Driver(command, ray_files, root / f"{job}.log", environment={}, program=["-m", "pipelines.cli"])
        with memory.watched(driver):
            ended = driver.wait(_LIMIT_S)
    finally:
        ray_files.close()
    assert ended.exit == 0, ended
    (manifest,) = root.glob(f"{job}-*/*/{MANIFEST_NAME}")
    stages = json.loads(manifest.read_text(encoding="utf-8"))["seconds"]
    seconds = {"seconds": round(time.monotonic() - begun, 1), "stages": stages}
    return manifest.parent, seconds | {"peak_mb": memory.peak}


def read_bare(files: list[str]) -> dict[str, float]:
    """Read the sentences of some shards with an engine of this process; returns when it began, ended, and how many."""
    engine = LexiconEngine()
    columns = [pq.read_table(file, columns=["text", "context"]).to_pydict() for file in files]
    pairs = [pair for part in columns for pair in zip(part["text"], part["context"], strict=True)]
    for text, context in pairs[:_WARM]:
        engine.extract(text, context)
    begun, used = time.monotonic(), time.process_time()
    findings = sum(len(engine.extract(text, context).findings) for text, context in pairs)
    ended, used = time.monotonic(), time.process_time() - used
    return {"begun": begun, "ended": ended, "cpu": used, "sentences": len(pairs), "findings": findings}


def bare_engine(run: Path, processes: int) -> dict[str, Any]:
    """Read the distinct sentences of a run with the engine alone, without Ray and without files."""
    files = sorted(str(file) for file in (run / "sentences").glob("*.parquet"))
    shares = [files[number::processes] for number in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(read_bare, shares))
    seconds = max(part["ended"] - part["begun"] for part in parts)
    sentences = sum(int(part["sentences"]) for part in parts)
    return {
        "processes": processes,
        "seconds": round(seconds, 2),
        # Far below seconds times processes: the machine was busy with something else, and no ratio means much.
        "cpu_seconds": round(sum(part["cpu"] for part in parts), 2),
        "load_average": round(os.getloadavg()[0], 1),
        "sentences": sentences,
        "sentences_per_second": round(sentences / seconds),
    }


def measure(reports: int, folder: Path, seed: int) -> dict[str, Any]:
    """Run the job on so many reports, then the bare engine on its distinct sentences."""
    corpus = folder / "corpus"
    begun = time.monotonic()
    write_reports(corpus, reports, seed, truth=False)
    written = round(time.monotonic() - begun, 1)
    ingested, ingest = run_job("ingest", f"reports={corpus}", "keep_report_ids=true", root=folder)
    shutil.rmtree(corpus)
    extracted, extract = run_job("extract", f"reports={ingested}", root=folder)
    manifest = json.loads((extracted / MANIFEST_NAME).read_text(encoding="utf-8"))
    counts = manifest["counts"]
    distinct, occurrences = counts["distinct_sentences"], counts["sentence_occurrences"]
    bare = bare_engine(extracted, os.cpu_count() or 1)
    phase = extract["stages"]["lexicon"]
    both = ingest["seconds"] + extract["seconds"]
    return {
        "reports": reports,
        "written_in_seconds": written,
        "ingest": ingest,
        "extract": extract,
        "reports_per_second": {
            "ingest": round(reports / ingest["seconds"]),
            "extract": round(reports / extract["seconds"]),
            "both": round(reports / both),
        },
        "distinct_sentences": distinct,
        "share_of_calls_saved": round(1 - distinct / occurrences, 4),
        "mentions": manifest["datasets"]["mentions"]["rows"],
        "bare_engine": bare,
        # Of the phase in which the engine reads: with starting, checkpoint, files, and the increment of the cache.
        "phase_reaches_of_bare": round(bare["seconds"] / phase, 3),
        # Of the whole job: an engine without a cache would have to read every sentence where it stands.
        "job_over_bare_without_cache": round(occurrences / bare["sentences_per_second"] / extract["seconds"], 3),
    }


def main() -> None:
    """Measure each size and write JSON after each: the last takes longest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    sizes: list[dict[str, Any]] = []
    for reports in given.reports:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            sizes.append(measure(reports, Path(name), given.seed))
        write_result(given.out, {"engine": "lexicon", "corpus": "synthetic", "sizes": sizes})


if __name__ == "__main__":
    main()
