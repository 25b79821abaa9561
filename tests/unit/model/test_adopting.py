"""Foreign weights as an encoder to train from: found wherever they lie, or refused by the names that are missing."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from transformers import AutoModel

from medfilip import ErrorCode, MedfilipError
from medfilip.model.adopting import adopt
from medfilip.model.config import ModelConfig
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.encoders import build_vision
from medfilip.model.tokenizer import Tokenizer
from tests.support.hub_models import save_bert, save_vision


@pytest.fixture
def vision(tmp_path):
    """Return the folder of a ResNet and other weights of the same architecture."""
    folder = save_vision("resnet", tmp_path / "original")
    weights = AutoModel.from_pretrained(folder).state_dict()
    return folder, {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}


def saved(tensors, path):
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def test_an_encoder_is_found_below_a_prefix_and_used(vision, tmp_path):
    folder, weights = vision
    half = {
        f"net.image_encoder.{name}": value.half() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    file = saved({**half, "net.head.weight": torch.ones(2)}, tmp_path / "w.safetensors")
    adopted = adopt(file, tmp_path / "adopted", tower="vision", config=folder)
    assert (adopted.prefix, adopted.unexpected) == ("net.image_encoder.", ("net.head.weight",))
    assert adopted.adopted == len(weights)
    encoder, _ = build_vision(ModelConfig(image_size=32, vision=str(adopted.folder)), pretrained=True)
    for name, value in encoder.backbone.state_dict().items():
        expected = weights[name].half().float() if weights[name].is_floating_point() else weights[name]
        assert torch.equal(value, expected) and value.dtype != torch.float16, name


def test_an_encoder_in_half_precision_is_trained_in_full(vision, tmp_path):
    AutoModel.from_pretrained(vision[0]).half().save_pretrained(tmp_path / "half")
    encoder, stored = build_vision(ModelConfig(image_size=32, vision=str(tmp_path / "half")), pretrained=True)
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}
    again, _ = build_vision(ModelConfig(image_size=32, vision="/gone", vision_config=stored), pretrained=False)
    assert {value.dtype for value in again.parameters()} == {torch.float32}


def test_a_text_encoder_brings_its_tokenizer_and_old_names(tmp_path):
    folder = save_bert(tmp_path / "original", lowercase=False)
    weights = AutoModel.from_pretrained(folder).state_dict()
    old = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in weights.items()
        if not name.startswith("pooler")
    }
    adopted = adopt(saved(old, tmp_path / "w.safetensors"), tmp_path / "adopted", tower="text", config=folder)
    assert adopted.prefix == "bert." and adopted.unused == ("pooler.dense.weight", "pooler.dense.bias")
    read = Tokenizer.of_pretrained(str(adopted.folder), 16)
    assert torch.equal(read.encode(["Nodule"])[0], Tokenizer.of_pretrained(folder, 16).encode(["Nodule"])[0])
    model = DualEncoder(ModelConfig(image_size=32, max_tokens=16, text=str(adopted.folder)), read)
    assert all(torch.equal(value, weights[name]) for name, value in model.text.backbone.state_dict().items())


def test_what_is_missing_or_of_another_shape_is_named(vision, tmp_path):
    folder, weights = vision
    first, second = list(weights)[:2]
    broken = {name: value for name, value in weights.items() if name != first}
    broken[second] = torch.ones(3)
    with pytest.raises(MedfilipError) as caught:
        adopt(saved(broken, tmp_path / "w.safetensors"), tmp_path / "adopted", tower="vision", config=folder)
    assert caught.value.code == ErrorCode.WEIGHTS_UNFIT
    assert first in str(caught.value) and f"{second} is [3]" in str(caught.value)
    assert not (tmp_path / "adopted").exists()


def test_weights_of_another_model_are_refused(vision, tmp_path):
    with pytest.raises(MedfilipError, match="are missing") as caught:
        adopt(saved({"a": torch.ones(1)}, tmp_path / "w.safetensors"), tmp_path / "x", tower="vision", config=vision[0])
    assert caught.value.code == ErrorCode.WEIGHTS_UNFIT


def test_architectures_and_folders_that_do_not_fit(vision, tmp_path):
    file = saved(vision[1], tmp_path / "w.safetensors")
    for folder, tower, config in (
        ("new", "vision", "/nowhere"),
        ("original", "vision", vision[0]),
        ("new", "text", vision[0]),
    ):
        with pytest.raises(MedfilipError) as caught:
            adopt(file, tmp_path / folder, tower=tower, config=config)
        assert caught.value.code == ErrorCode.CONFIG_INVALID and not (tmp_path / "new").exists()
