"""The commands for models that leave and weights that arrive."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel
from typer.testing import CliRunner

from medfilip.model import _weights_worker, converting
from pipelines.cli import app
from tests.support.hub_models import save_vision


def invoke(*arguments):
    return CliRunner().invoke(app, [str(item) for item in arguments])


def test_export_model(tiny_checkpoint, tmp_path):
    result = invoke("export-model", tiny_checkpoint, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "README.md" in result.output and (tmp_path / "out" / "vision" / "config.json").exists()
    assert invoke("export-model", tiny_checkpoint, tmp_path / "out").exit_code == 2


def test_convert_weights_lists_tensors_and_what_was_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(
        converting, "_run", lambda source, staging, key, _: _weights_worker.convert(source, staging, key)
    )
    torch.save({"model": {"module.a": torch.ones(2, 3)}, "epoch": 3}, tmp_path / "w.pt")
    result = invoke("convert-weights", tmp_path / "w.pt", tmp_path / "w.safetensors")
    assert result.exit_code == 0, result.output
    assert "2 x 3" in result.output and "dropped epoch" in result.output and (tmp_path / "w.safetensors").exists()


def test_convert_weights_into_an_encoder(tmp_path):
    folder = save_vision("resnet", tmp_path / "original")
    weights = AutoModel.from_pretrained(folder).state_dict()
    torch.save(
        {"state_dict": {**{f"enc.{name}": value for name, value in weights.items()}, "head": torch.ones(1)}},
        tmp_path / "w.pt",
    )
    out = tmp_path / "adopted"
    result = invoke("convert-weights", tmp_path / "w.pt", out, "--into", "vision", "--config", folder)
    assert result.exit_code == 0, result.output
    assert "head" in result.output and "train.model.vision=" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    again = ("--into", "vision", "--config", folder)
    assert invoke("convert-weights", out / "model.safetensors", tmp_path / "again", *again).exit_code == 0
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    for name in ("broken", "nowhere"):
        result = invoke("convert-weights", tmp_path / f"{name}.safetensors", tmp_path / "new", *again)
        assert result.exit_code == 1 and "weights_unreadable" in result.output


def test_a_bucket_is_no_place_to_write_to(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (("export-model", tiny_checkpoint), ("convert-weights", "w.pt")):
        result = invoke(*arguments, "s3://bucket/out.safetensors")
        assert result.exit_code == 1 and "uri_not_allowed" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--into", "vision"], ["--config", "x"], ["--into", "sound", "--config", "x"]])
def test_options_that_do_not_go_together(options, tmp_path):
    result = invoke("convert-weights", tmp_path / "w.pt", tmp_path / "out", *options)
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
