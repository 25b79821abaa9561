"""torchrun trains what one process trains."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from medfilip.model.checkpoint import load_checkpoint
from medfilip.training.__main__ import main
from tests.unit.training.published import SMALL, publish_pairs

SETTINGS = ("epochs=2", *SMALL)


def test_torchrun_trains_what_one_process_trains(tmp_path):
    pairs, images = publish_pairs(tmp_path / "runs")
    runs = ("--pairs", str(pairs), "--images", str(images))
    folders = tmp_path / "alone", tmp_path / "two"
    assert main([*runs, "--out", str(folders[0]), *SETTINGS]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    result = subprocess.run(
        [*command, "-m", "medfilip.training", *runs, "--out", str(folders[1]), *SETTINGS],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("step 4") == 1, "only one process shows progress"
    expected, found = (load_checkpoint(folder / "model") for folder in folders)
    assert found.metrics["loss"] == pytest.approx(expected.metrics["loss"], abs=1e-5)
    for name, value in expected.model.state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], value, rtol=0, atol=2e-4)
