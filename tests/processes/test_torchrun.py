"""torchrun trains what one process trains, images and students alike."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medfilip.distillation import __main__ as distillation
from medfilip.distillation.dataset import TRAIN, VALIDATION, Row
from medfilip.distillation.row_file import write_rows
from medfilip.model.checkpoint import load_checkpoint
from medfilip.training.__main__ import main
from tests.unit.training.published import SMALL, publish_pairs

SETTINGS = ("epochs=2", *SMALL)
STUDENT = (
    "student.vocabulary=300", "student.hidden_size=32", "student.layers=1", "student.heads=1",
    "student.intermediate_size=32", "max_steps=6", "batch_tokens=256", "report_steps=3", "state_steps=4",
    "validation_rows=2", "exact_rows=1", "dtype=float32", "learning_rate=0.01",
)  # fmt: skip


def torchrun(module: str, *arguments: str) -> str:
    """Run a module in two processes and return what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    result = subprocess.run(
        [*command, "-m", module, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_torchrun_trains_what_one_process_trains(tmp_path):
    pairs, images = publish_pairs(tmp_path / "runs")
    runs = ("--pairs", str(pairs), "--images", str(images))
    folders = tmp_path / "alone", tmp_path / "two"
    assert main([*runs, "--out", str(folders[0]), *SETTINGS]) == 0
    told = torchrun("medfilip.training", *runs, "--out", str(folders[1]), *SETTINGS)
    assert told.count("step 4") == 1, "only one process shows progress"
    expected, found = (load_checkpoint(folder / "model") for folder in folders)
    assert found.metrics["loss"] == pytest.approx(expected.metrics["loss"], abs=1e-5)
    for name, value in expected.model.state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], value, rtol=0, atol=2e-4)


def test_two_processes_train_the_student_of_one_and_one_goes_on_from_their_state(tmp_path: Path) -> None:
    # Of rows that differ in length some stand alone in a batch, of which one process then has nothing.
    texts = [f"small effusion {number}" + " and stable" * (number % 12) for number in range(40)]
    rows = [Row(text, None, '{"f":[]}' + text, "plain", "rules", TRAIN) for text in texts]
    data = tmp_path / "set.parquet"
    write_rows([*rows, *(Row(f"edema {n}", None, "{}", "plain", "rules", VALIDATION) for n in range(2))], data, {})
    alone, two, after = (tmp_path / name for name in ("alone", "two", "after"))
    assert distillation.main(["--data", str(data), "--out", str(alone), *STUDENT]) == 0
    told = torchrun("medfilip.distillation", "--data", str(data), "--out", str(two), *STUDENT)
    assert told.count("step 6") == 1 and "2 processes" in told
    shutil.copytree(two / "state", after / "state")
    assert distillation.main(["--data", str(two / "prepared"), "--out", str(after), *STUDENT]) == 0
    logs = {
        at: [json.loads(line) for line in (at / "log.jsonl").read_text().splitlines()] for at in (alone, two, after)
    }
    assert [entry["step"] for entry in logs[after]] == [6], "its first four steps were taken by two processes"
    weights = {at: load_file(at / "model/model.safetensors") for at in logs}
    for at in (two, after):
        assert logs[at][-1]["validation_loss"] == pytest.approx(logs[alone][-1]["validation_loss"], abs=1e-4)
        for name, value in weights[alone].items():
            torch.testing.assert_close(weights[at][name], value, rtol=0, atol=2e-4)
    assert logs[two][0]["loss"] == pytest.approx(logs[alone][0]["loss"], abs=1e-4)
