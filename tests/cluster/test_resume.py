"""A driver killed in the middle of its work: the next start ends with the same rows, each once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from medfilip.imaging.listing import MIN_FILES_PER_PART
from medfilip.phantom.corpus import write_corpus
from medfilip.phantom.study import StudyOptions
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


@dataclass(frozen=True)
class Undisturbed:
    """An ingested corpus and what extract makes of it when nothing goes wrong."""

    settings: tuple[str, ...]
    expected: dict[str, pa.Table]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("resume")
    write_corpus(folder / "corpus", 60, seed=3)
    ingested = finish("ingest", f"reports={folder}/corpus", f"root={folder}/ingest")
    settings = ("extract", f"reports={ingested}", "rows_per_block=5")
    return Undisturbed(settings, rows(finish(*settings, f"root={folder}/undisturbed")))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("written", "enough"),
    [("records/merge/*.json", 1), ("lexicon/records/read/*.json", 3)],
    ids=["while-sentences-are-merged", "while-sentences-are-extracted"],
)
def test_a_killed_extract_resumes_to_the_same_rows(
    undisturbed: Undisturbed, tmp_path: Path, written: str, enough: int
) -> None:
    root = f"root={tmp_path}"
    process = start(*undisturbed.settings, root)
    deadline = time.monotonic() + 180
    committed: list[Path] = []
    while len(committed) < enough and time.monotonic() < deadline and process.poll() is None:
        committed = list(tmp_path.glob(f"extract-*/*/staging/{written}"))
        time.sleep(0.02)
    assert process.poll() is None, "the job ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(committed) >= enough, "the test killed a job that had committed work"
    assert not list(tmp_path.glob("extract-*/*/manifest.json")), "nothing is published half-way"

    resumed = finish(*undisturbed.settings, root)
    runs = [child for child in resumed.parent.children() if child.is_dir()]
    assert runs == [resumed], "no second run"
    found = rows(resumed)
    for name in DATASETS:
        assert found[name] == undisturbed.expected[name], name
    ids = found["mentions"]["mention_id"].to_pylist()
    assert len(ids) == len(set(ids)) > 0
    again = start(*undisturbed.settings, root)
    assert again.wait(120) == 0
    assert rows(resumed)["mentions"] == undisturbed.expected["mentions"]


@pytest.mark.timeout(600)
def test_a_killed_ingest_of_images_resumes_to_the_same_manifest(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", 140, seed=4, options=StudyOptions(size=128))
    settings = ("ingest", f"reports={tmp_path}/corpus", f"images={tmp_path}/corpus/images", "quiet=true")
    undisturbed = finish(*settings, f"root={tmp_path}/undisturbed")

    process = start(*settings, f"root={tmp_path}/killed")
    deadline = time.monotonic() + 180
    done: list[Path] = []
    while not done and time.monotonic() < deadline and process.poll() is None:
        done = list((tmp_path / "killed").glob("ingest-*/*/staging/records/images/*.json"))
        time.sleep(0.02)
    assert process.poll() is None, "the job ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # What was committed is not read again: nobody sees that one of its files is spoilt by now.
    part = int(done[0].stem.removeprefix("part-"))
    spoilt = sorted((tmp_path / "corpus/images").iterdir())[part * MIN_FILES_PER_PART]
    before = spoilt.stat()
    spoilt.write_bytes(bytes(before.st_size))
    os.utime(spoilt, ns=(before.st_atime_ns, before.st_mtime_ns))

    resumed = finish(*settings, f"root={tmp_path}/killed")
    assert read_manifest(resumed).fingerprint == read_manifest(undisturbed).fingerprint
    runs = [child for child in resumed.parent.children() if child.is_dir()]
    assert runs == [resumed], "no second run"


@dataclass(frozen=True)
class Diagnosed:
    """A corpus, how its studies are diagnosed, and the fingerprint of a run that nothing disturbed."""

    images: Path
    settings: tuple[str, ...]
    fingerprint: str


@pytest.fixture(scope="module")
def diagnosed(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Diagnosed:
    folder = tmp_path_factory.mktemp("diagnosed")
    write_corpus(folder / "corpus", 140, seed=4, options=StudyOptions(size=128))
    images = folder / "corpus" / "images"
    settings = ("diagnose_batch", f"images={images}", f"checkpoint={tiny_checkpoint}", "studies_per_shard=20")
    run = finish(*settings, f"root={folder}/undisturbed")
    return Diagnosed(images, settings, read_manifest(run).fingerprint)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["encode", "answer"])
def test_a_killed_batch_of_diagnoses_resumes_to_the_same_manifest(
    diagnosed: Diagnosed, tmp_path: Path, stage: str
) -> None:
    process = start(*diagnosed.settings, f"root={tmp_path}")
    deadline = time.monotonic() + 180
    done: list[Path] = []
    while not done and time.monotonic() < deadline and process.poll() is None:
        done = list(tmp_path.glob(f"diagnose_batch-*/*/staging/records/{stage}/*.json"))
        time.sleep(0.02)
    assert process.poll() is None and done, "the job ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("diagnose_batch-*/*/manifest.json")), "nothing is published half-way"
    # What was committed is not read again: nobody sees that one of its files is spoilt by now.
    chunk = int(done[0].stem.split("-")[1]) if stage == "encode" else 0
    spoilt = sorted(diagnosed.images.iterdir())[chunk * MIN_FILES_PER_PART]
    before, data = spoilt.stat(), spoilt.read_bytes()
    spoilt.write_bytes(bytes(before.st_size))
    os.utime(spoilt, ns=(before.st_atime_ns, before.st_mtime_ns))
    try:
        resumed = finish(*diagnosed.settings, f"root={tmp_path}")
    finally:
        spoilt.write_bytes(data)
        os.utime(spoilt, ns=(before.st_atime_ns, before.st_mtime_ns))

    manifest = read_manifest(resumed)
    assert manifest.fingerprint == diagnosed.fingerprint
    rows = read_dataset(resumed, manifest, "diagnoses").select(["study_id", "label"]).to_pylist()
    assert len({tuple(row.values()) for row in rows}) == len(rows) == manifest.datasets["diagnoses"].rows
    assert manifest.counts["studies"] == 140 and not manifest.rejected
    assert [child for child in resumed.parent.children() if child.is_dir()] == [resumed], "no second run"
