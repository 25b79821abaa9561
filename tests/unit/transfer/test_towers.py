"""What towers begin with: proof that it is the checkpoint, or that it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import AutoModel

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_file
from medfilip.model.checkpoint import load_checkpoint
from medfilip.transfer.towers import centre, input_fingerprint, start, stored_tower_hash, weights_hash
from tests.support.hub_models import save_vision


def test_the_loaded_weights_are_those_of_the_file(tiny_checkpoint: Path) -> None:
    found = start("checkpoint", tiny_checkpoint, 0)
    stored = safetensors.torch.load_file(tiny_checkpoint / "model.safetensors")
    weights = found.tower.state_dict()
    assert weights and set(weights) == {name[6:] for name in stored if name.startswith("image.")}
    for name, value in weights.items():
        assert torch.equal(value, stored[f"image.{name}"])
    assert found.weights == weights_hash(weights) == stored_tower_hash(tiny_checkpoint)
    assert load_checkpoint(tiny_checkpoint).fingerprint in found.source


def test_one_changed_bit_changes_the_hash(tiny_checkpoint: Path) -> None:
    weights = start("checkpoint", tiny_checkpoint, 0).tower.state_dict()
    before = weights_hash(weights)
    name = sorted(weights)[0]
    bits = weights[name].reshape(-1)[:1].view(torch.int32)
    bits ^= 1
    assert weights_hash(weights) != before
    bits ^= 1
    assert weights_hash(weights) == before
    renamed = {("x" if key == name else key): value for key, value in weights.items()}
    assert weights_hash(renamed) != before


def test_a_changed_byte_of_the_file_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(MedfilipError, match=r"model\.safetensors does not match its hash") as caught:
        start("checkpoint", folder, 0)
    assert caught.value.code is ErrorCode.CHECKPOINT_INVALID


def test_a_tower_that_is_not_the_files_is_refused(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medfilip.transfer import towers

    def untrained(folder: Path) -> object:
        found = load_checkpoint(folder)
        torch.nn.init.ones_(found.model.image.project.bias)
        return found

    monkeypatch.setattr(towers, "load_checkpoint", untrained)
    with pytest.raises(MedfilipError, match="is not the one in") as caught:
        start("checkpoint", tiny_checkpoint, 0)
    assert caught.value.code is ErrorCode.CHECKPOINT_INVALID


def test_random_weights_have_the_architecture_and_no_weight_of_the_checkpoint(tiny_checkpoint: Path) -> None:
    loaded, random = start("checkpoint", tiny_checkpoint, 0), start("random", tiny_checkpoint, 0)
    assert {name: value.shape for name, value in loaded.tower.state_dict().items()} == {
        name: value.shape for name, value in random.tower.state_dict().items()
    }
    assert random.weights not in (loaded.weights, start("random", tiny_checkpoint, 1).weights)
    assert random.weights == start("random", tiny_checkpoint, 0).weights


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_weights_of_a_hugging_face_model_are_loaded(kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = save_vision(kind, tmp_path)
    found = start("imagenet", tiny_checkpoint, 0, folder)
    given = AutoModel.from_pretrained(folder).state_dict()  # whose names are not those of the file
    backbone = found.tower.backbone.state_dict()
    assert backbone
    for name, value in backbone.items():
        assert torch.equal(value, given[name]), name
    assert found.config.image_size == 32 and folder in found.source


def test_a_model_that_is_not_there_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for name in (None, str(tmp_path / "nothing")):
        with pytest.raises(MedfilipError) as caught:
            start("imagenet", tiny_checkpoint, 0, name)
        assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_given_weights_are_told_apart_by_their_files(tmp_path: Path) -> None:
    save_vision("resnet", tmp_path)
    before = input_fingerprint(str(tmp_path))
    assert before == input_fingerprint(str(tmp_path)) and len(before) == len(sha256_file(tmp_path / "config.json"))
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert input_fingerprint(str(tmp_path)) != before
    assert input_fingerprint("microsoft/resnet-50") == "microsoft/resnet-50"


def test_a_centred_tower_maps_a_sample_around_zero(tiny_checkpoint: Path) -> None:
    tower, pixels = start("random", tiny_checkpoint, 0).tower, torch.randn(8, 1, 32, 32)
    assert tower(pixels).mean(dim=0).abs().max() > 1e-3
    centre(tower, pixels)
    assert tower(pixels).mean(dim=0).abs().max() < 1e-5
