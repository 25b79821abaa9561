"""A killed driver of distillation: the command goes on with other processes, to the weights of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medfilip.core.settings import load_settings
from medfilip.distillation.__main__ import main
from pipelines.distill import DistillJobSettings, run

MICRO = (
    "student.vocabulary=400", "student.hidden_size=32", "student.layers=1", "student.heads=1",
    "student.intermediate_size=32", "max_steps=160", "batch_tokens=1024", "report_steps=20", "state_steps=20",
    "validation_rows=4", "exact_rows=1", "dtype=float32",
)  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[str]:
    """Start a cluster with room for two training processes; return its address."""
    import ray

    context = ray.init(
        address="local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False,
        configure_logging=False,
    )  # fmt: skip
    yield context.address_info["address"]
    ray.shutdown()


def is_committed(root: Path) -> bool:
    """Whether Ray Train would begin a second start with a state."""
    found = root.glob("distill-*/*/staging/train/*/checkpoint_manager_snapshot.json")
    return any(json.loads(file.read_bytes())["latest_checkpoint_result"] for file in found)


def test_a_killed_driver_that_starts_again_goes_on(cluster: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    given = [
        "synthetic=2000", "test_rows=2", f"root={root}", *(f"train.{item}" for item in MICRO),
        "gate.valid=0", "gate.grounded=0", "gate.f1_ratio=0", "quiet=true",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "distill", *given, "workers=2", f"ray.address={cluster}"],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 100
    try:
        while time.monotonic() < deadline and not is_committed(root):
            assert process.poll() is None, "the job ended before it could be killed"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert is_committed(root), "no state to go on from"
    (first,) = root.glob("distill-*/*/staging/log/00000020.json")
    told = first.read_bytes()
    outcome = run(load_settings(DistillJobSettings, "distill", overrides=given))
    assert len(list(root.glob("distill-*/*/run.json"))) == 1, "no second run"
    folder = Path(outcome.location)
    lines = (folder / "log.jsonl").read_bytes().splitlines()
    # Its speed would be another one if these steps had been taken twice.
    assert lines[0] == told and [json.loads(line)["step"] for line in lines] == list(range(20, 161, 20))
    quiet = tmp_path / "quiet"
    assert main(["--data", str(folder / "training_set.parquet"), "--out", str(quiet), *MICRO]) == 0
    found, expected = (load_file(at / "model/model.safetensors") for at in (folder, quiet))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-3)
