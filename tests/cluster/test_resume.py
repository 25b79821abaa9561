"""A driver killed in the middle of extract: the next start ends with the same rows, each once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from medfilip.phantom.corpus import write_corpus
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.shards import read_dataset

DATASETS = ("sentences", "occurrences", "mentions", "resolved_findings")


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(*arguments: str) -> Location:
    process = start(*arguments)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()
    root = next(Path(item.removeprefix("root=")) for item in arguments if item.startswith("root="))
    return Location.parse(max(root.glob(f"{arguments[0]}-*/*/manifest.json"), key=os.path.getmtime).parent)


def rows(run: Location) -> dict[str, pa.Table]:
    manifest = read_manifest(run)
    return {name: read_dataset(run, manifest, name) for name in DATASETS}


@pytest.mark.timeout(600)
def test_a_killed_extract_resumes_to_the_same_rows(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", 60, seed=3)
    ingested = finish("ingest", f"reports={tmp_path}/corpus", f"root={tmp_path}/ingest")
    settings = ("extract", f"reports={ingested}", "rows_per_block=5")
    undisturbed = finish(*settings, f"root={tmp_path}/undisturbed")

    root = f"root={tmp_path}/disturbed"
    process = start(*settings, root)
    deadline = time.monotonic() + 180
    committed: list[Path] = []
    while len(committed) < 3 and time.monotonic() < deadline and process.poll() is None:
        committed = list((tmp_path / "disturbed").glob("extract-*/*/staging/found/*.parquet"))
        time.sleep(0.05)
    assert process.poll() is None, "the job ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "disturbed").glob("extract-*/*/manifest.json")), "nothing is published half-way"
    written = {path.name for path in committed}

    resumed = finish(*settings, root)
    assert [run.name for run in Location.parse(resumed.parent.path).children()] == [resumed.name], "no second run"
    expected, found = rows(undisturbed), rows(resumed)
    for name in DATASETS:
        assert found[name] == expected[name], name
    ids = found["mentions"]["mention_id"].to_pylist()
    assert len(ids) == len(set(ids)) > 0
    assert written, "the test killed a job that had committed rows"
    again = start(*settings, root)
    assert again.wait(120) == 0
    assert rows(resumed)["mentions"] == expected["mentions"]
