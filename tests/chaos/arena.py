"""Where a chaos run takes place: an ingested corpus, what extract makes of it undisturbed, and one run's own folder."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME
from medfilip.storage.run import RUN_FILE
from tests.chaos.compare import Result, cache_difference, difference, read_result
from tests.chaos.driver import START_LIMIT_S, Driver, Ended, RayFiles

STARTS = 4
"""How often a job is started, faults at work or not, before it must have finished."""

_FILES = 6
_RAY = ("ray.num_cpus=4", "ray.object_store_mb=150")
_COMMAND = ["-m", "pipelines.cli"]


@dataclass(frozen=True)
class Corpus:
    """An ingested phantom corpus and the undisturbed result of extracting it.

    Attributes
    ----------
    reports
        Folder of the ingest run.
    expected
        What extract makes of it.
    bytes
        What an extract run occupies on a disk at its end.
    """

    reports: Path
    expected: Result
    bytes: int


def make_corpus(folder: Path, reports: int, seed: int = 3) -> Corpus:
    """Write phantom reports in a few files, ingest them, and extract them undisturbed."""
    _finish("phantom", "images=false", "truth=false", f"count={reports}", f"seed={seed}", f"root={folder}/phantom")
    (source,) = (folder / "phantom").glob("*/*/corpus")
    corpus = folder / "corpus"
    corpus.mkdir()
    (written,) = source.glob("*.parquet")
    table = pq.read_table(written)
    rows = -(-reports // _FILES)
    for number in range(_FILES):
        pq.write_table(table.slice(number * rows, rows), corpus / f"reports-{number}.parquet")
    shutil.copy(source / "phantom.json", corpus)
    _finish("ingest", f"reports={corpus}", f"root={folder}/ingest", "keep_report_ids=true", *_RAY)
    (manifest,) = (folder / "ingest").glob(f"*/*/{MANIFEST_NAME}")
    with arena(folder / "undisturbed", Corpus(manifest.parent, Result({}, {}, ""), 0), seed=0) as undisturbed:
        run = undisturbed.finish()
        expected = read_result(run)
        size = sum(file.stat().st_size for file in Path(undisturbed.root.path).rglob("*") if file.is_file())
    return Corpus(manifest.parent, expected, size)


def _finish(*arguments: str) -> None:
    ray_files = RayFiles()
    try:
        log = Path(ray_files.path) / "driver.log"
        ended = Driver(list(arguments), ray_files, log, environment={}, program=_COMMAND).wait()
    finally:
        ray_files.close()
    assert ended.exit == 0, ended


@dataclass
class Arena:
    """One chaos run.

    Attributes
    ----------
    corpus
        What is extracted; ``reports`` may be another ingest run than the corpus's own.
    folder, root
        Folder of the run, and where its drivers write.
    rng
        All that is drawn comes from it.
    settings, environment, program
        Of the drivers, beside the common ones.
    limit_s
        How long one start may take.
    faults, ends
        What was done to the run, and how its drivers ended.
    """

    corpus: Corpus
    folder: Path
    root: Location
    rng: random.Random
    reports: Path
    settings: list[str] = field(default_factory=lambda: ["rows_per_block=200"])
    environment: dict[str, str] = field(default_factory=dict)
    program: list[str] = field(default_factory=lambda: list(_COMMAND))
    limit_s: float = START_LIMIT_S
    faults: list[dict[str, Any]] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)

    @contextmanager
    def started(self) -> Iterator[Driver]:
        """Start a driver; how it ends is noted, and its cluster ends with the context."""
        ray_files = RayFiles()
        log = self.folder / f"driver-{len(self.ends)}.log"
        arguments = ["extract", f"reports={self.reports}", f"root={self.root}", *_RAY, *self.settings]
        driver = Driver(arguments, ray_files, log, environment=self.environment, program=self.program)
        try:
            yield driver
            self.ends.append(driver.wait(self.limit_s))
        finally:
            driver.kill()
            driver.process.wait()
            ray_files.close()

    def start_until_done(self) -> None:
        """Start the job until it has finished.

        Raises
        ------
        AssertionError
            If it does not finish in `STARTS` starts, hangs, or fails without a code.
        """
        for _ in range(STARTS):
            with self.started():
                pass
            if self.ends[-1].exit == 0:
                break
        assert self.ends[-1].exit == 0, f"does not finish: {self.ends[-1]}"
        self.check_ends()

    def finish(self) -> Location:
        """Start the job until it has finished; returns its only run."""
        self.start_until_done()
        return self.only_run()

    def only_run(self) -> Location:
        """Return the run's folder, after a check that it is published and that there is no other."""
        runs = self.runs()
        assert len(runs) == 1, f"{len(runs)} runs instead of one"
        assert (runs[0] / MANIFEST_NAME).exists(), "an exit code of 0 and no manifest"
        return runs[0]

    def check_ends(self) -> None:
        """Check that no driver hung, and that each that failed by itself told a code."""
        for ended in self.ends:
            assert ended.exit is not None, "a driver hung"
            assert ended.exit <= 0 or ended.error, f"a driver failed without a code: {ended.message}"

    def runs(self) -> list[Location]:
        """Return the folders of all extract runs below the root."""
        jobs = [job for job in self.root.children() if job.name.startswith("extract-")]
        return [run for job in jobs for run in job.children() if (run / RUN_FILE).exists()]

    def wait_until(self, happened: Callable[[], bool], driver: Driver, limit_s: float = 180.0) -> bool:
        """Wait for something while the driver runs; returns whether it happened before the driver ended."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if happened():
                return True
            if not driver.is_running():
                return False
            time.sleep(0.005)
        return False

    def differences(self, run: Location) -> dict[str, Any]:
        """Return how the run's rows, and the ids of the findings cache, differ from what they should be."""
        found = read_result(run)
        told = difference(found, self.corpus.expected)
        cache = cache_difference(self.root, found.tables["sentences"])
        return told | ({"cache": cache} if cache else {}) | self._bytes_differ(found, told)

    def _bytes_differ(self, found: Result, told: dict[str, Any]) -> dict[str, Any]:
        # The same rows in another order, or another file, would be another dataset to whoever reads it.
        other_settings = any(setting.startswith("buckets=") for setting in self.settings)
        same = (
            told
            or other_settings
            or self.reports != self.corpus.reports
            or found.fingerprint == self.corpus.expected.fingerprint
        )
        return {} if same else {"fingerprint": "differs though the rows do not"}

    def told_ends(self) -> list[dict[str, Any]]:
        """Return how the drivers ended, for a result."""
        return [asdict(ended) | {"message": ended.message[:200] if ended.exit else ""} for ended in self.ends]


@contextmanager
def arena(folder: Path, corpus: Corpus, seed: int) -> Iterator[Arena]:
    """Open a chaos run in a folder of its own, which is deleted at the end."""
    folder.mkdir(parents=True)
    root = Location.parse(folder / "runs")
    root.make_dir()
    try:
        yield Arena(corpus, folder, root, random.Random(seed), corpus.reports)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
