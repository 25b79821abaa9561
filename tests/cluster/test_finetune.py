"""Fine-tuning whose driver is killed in mid-cell: started again, it ends with the numbers of a quiet run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medfilip.core.settings import load_settings
from medfilip.phantom.corpus import write_corpus
from medfilip.phantom.study import StudyOptions
from pipelines.finetune import FinetuneSettings, run
from pipelines.ingest import SETTINGS as INGEST
from pipelines.ingest import run as ingest


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    import ray

    context = ray.init(
        address="local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False,
        configure_logging=False,
    )  # fmt: skip
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def given(cluster: str, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> list[str]:
    folder = tmp_path_factory.mktemp("drawn")
    options = StudyOptions(size=64, categories=("pneumothorax",), prevalence=0.5)
    write_corpus(folder, 40, 9, options=options)
    places = [f"reports={folder}", f"images={folder}/images", f"root={folder}/runs", "keep_report_ids=true"]
    splits = ["split.train=0.5", "split.validation=0.25", "split.test=0.25"]
    images = ingest(load_settings(INGEST, "ingest", overrides=[*places, *splits]))
    return [
        f"checkpoint={tiny_checkpoint}", f"images={images.location}", f"phantom_truth={folder}",
        "labels=[pneumothorax]", "modes=full", "inits=checkpoint", "fractions=[0.5,1]", "tune.steps=50",
        "tune.evaluate_every=10", "tune.global_batch=4", "resamples=10", "quiet=true",
    ]  # fmt: skip


def finetune(given: list[str], root: Path) -> dict[str, Any]:
    outcome = run(load_settings(FinetuneSettings, "finetune", overrides=[*given, f"root={root}"]))
    found: dict[str, Any] = json.loads((Path(outcome.location) / "transfer.json").read_bytes())
    return found


def test_a_killed_driver_that_starts_again_goes_on(cluster: str, given: list[str], tmp_path: Path) -> None:
    more = [f"root={tmp_path}/killed", f"ray.address={cluster}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "finetune", *given, *more],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline, second = time.monotonic() + 200, []
    try:
        # In the second cell, when a state of it has been committed.
        while time.monotonic() < deadline and not second:
            assert process.poll() is None, "the job ended before it could be killed"
            if list(tmp_path.glob("killed/*/*/staging/records/tune/*.json")):
                second = [
                    file
                    for file in tmp_path.glob("killed/*/*/staging/train/*/checkpoint_*/progress.json")
                    if 10 < json.loads(file.read_bytes())["step"] < 50
                ]
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert second, "no state to go on from"
    records = list(tmp_path.glob("killed/*/*/staging/records/tune/*.json"))
    assert len(records) == 1
    # Nothing else would write this: the finished cell is not done again.
    records[0].write_text(json.dumps({**json.loads(records[0].read_bytes()), "marked": True}))
    found = finetune(given, tmp_path / "killed")
    assert [run["runs"][0].get("marked", False) for run in found["rows"]] == [True, False]
    quiet = finetune(given, tmp_path / "quiet")
    for mine, expected in zip(found["rows"], quiet["rows"], strict=True):
        assert mine["runs"][0]["best_step"] == expected["runs"][0]["best_step"]
        assert mine["runs"][0]["validation"] == pytest.approx(expected["runs"][0]["validation"], abs=1e-6)
        assert mine["value"]["value"] == pytest.approx(expected["value"]["value"], abs=1e-6)
    assert len(list(tmp_path.glob("killed/*/*/manifest.json"))) == 1, "no second run"
