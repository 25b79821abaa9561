"""Two processes compute the loss and the gradients of one, and train alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from medfilip.model.distributed import World
from tests.unit.training import worker


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(Path(worker.__file__))]
    processes = [
        subprocess.Popen([*command, str(rank), "2", str(folder)], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()[-2000:]
    return folder


@pytest.mark.parametrize("objective", ["soft_sigmoid", "infonce"])
def test_loss_and_gradients_are_those_of_one_process(results, objective):
    expected = worker.gradients(World(), objective)
    for rank in range(2):
        found = safetensors.torch.load_file(results / f"{objective}-{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_training_takes_the_same_course(results, tmp_path):
    expected = worker.train(World(), tmp_path)
    for rank in range(2):
        assert json.loads((results / f"losses-{rank}.json").read_text()) == pytest.approx(expected, abs=1e-5)
