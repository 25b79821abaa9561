"""Two and three processes compute the loss and the gradients of one, whatever way texts take, and train alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from medfilip.model.checkpoint import load_checkpoint
from medfilip.model.distributed import World
from tests.processes import worker

SIZES = (2, 3)


@pytest.fixture(scope="module", params=SIZES)
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"processes-{request.param}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(Path(worker.__file__))]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(request.param), str(folder)], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(request.param)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()[-2000:]
    return request.param, folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds: of each case, and of each run."""
    objectives = {changes.get("objective", "soft_sigmoid") for changes in worker.CASES.values()}
    folder = tmp_path_factory.mktemp("alone")
    losses = {name: worker.train(World(), folder / name, **changes) for name, changes in worker.RUNS.items()}
    return {name: worker.gradients(World(), objective=name) for name in objectives}, losses, folder


@pytest.mark.parametrize("case", worker.CASES)
def test_loss_and_gradients_are_those_of_one_process(results, alone, case):
    size, folder = results
    expected = alone[0][worker.CASES[case].get("objective", "soft_sigmoid")]
    for rank in range(size):
        found = safetensors.torch.load_file(folder / f"{case}-{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize("results", [3], indirect=True)
@pytest.mark.parametrize("run", worker.RUNS)
def test_training_takes_the_same_course(results, alone, run):
    size, folder = results
    for rank in range(size):
        losses = json.loads((folder / f"losses-{rank}.json").read_text())[run]
        assert losses == pytest.approx(alone[1][run], abs=1e-5)
    expected, found = (
        load_checkpoint(sorted(place.glob("step-*"))[-1]).model.state_dict()
        for place in (alone[2] / run, folder / f"run-{run}")
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}")
