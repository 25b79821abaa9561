"""``python -m medfilip.training``: one process, and a start that goes on where another ended."""

from __future__ import annotations

import pytest
import torch

from medfilip.model.checkpoint import load_checkpoint
from medfilip.model.distributed import process_group
from medfilip.training.__main__ import main
from tests.unit.training.published import SMALL, publish_pairs

SETTINGS = ("epochs=2", *SMALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    pairs, images = publish_pairs(tmp_path_factory.mktemp("runs"))
    return ("--pairs", str(pairs), "--images", str(images))


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert main([*runs, "--out", str(folder), *SETTINGS]) == 0
    return folder


def test_one_process_trains_validates_and_leaves_a_model(alone, runs, capsys):
    model = load_checkpoint(alone / "model")
    assert model.versions.synthetic and model.metrics["epoch"] == 2
    assert "zero_shot_pnc_auroc" in model.metrics
    before = {path: path.stat().st_mtime_ns for path in alone.glob("step-*/model.safetensors")}
    assert main([*runs, "--out", str(alone), "--no-validation", *SETTINGS]) == 0
    assert "epoch 2.00  step 4" in (shown := capsys.readouterr().out) and "epoch 1.00" not in shown
    assert load_checkpoint(alone / "model").fingerprint == model.fingerprint
    assert {path.parent.name for path in before} == {"step-00000002", "step-00000004"}


def test_wrong_settings_are_told(runs, tmp_path, capsys):
    assert main(["epochs=2", *runs, "--out", str(tmp_path), "epoch=2"]) == 2
    assert "[config_unknown_key]" in (told := capsys.readouterr().err) and "'epochs'" in told
    assert main(["--pairs", str(tmp_path), *runs[2:], "--out", str(tmp_path)]) == 1
    assert "[input_not_published]" in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environment = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "0"}
    with pytest.raises(Exception, match="3 is above this machine's 2 GPUs"), process_group(environment):
        pass
