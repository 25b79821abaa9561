"""The towers: shapes, independence of exposure, and any Hugging Face backbone from a local path."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from medfilip import ErrorCode, MedfilipError
from medfilip.model.config import ModelConfig
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.encoders import build_vision
from medfilip.model.tokenizer import Tokenizer


def test_embeddings_have_unit_length(model):
    image = model.encode_image(torch.randn(3, 1, 32, 32))
    text = model.encode_text(["nodule", "mass", "nodule", "x" * 500])
    assert image.shape == (3, 16) and text.shape == (4, 16)
    for embedding in (image, text):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)))
    assert torch.equal(text[0], text[2]) and not torch.equal(text[0], text[1])
    assert model.logits(image, text).shape == (3, 4)


def test_exposure_does_not_matter_and_place_does(model):
    image = torch.randn(2, 1, 32, 32)
    same = model.encode_image(image * 3 + 5)
    torch.testing.assert_close(model.encode_image(image), same, rtol=1e-4, atol=1e-5)
    assert (model.encode_image(image) - model.encode_image(image.flip(3))).abs().max() > 1e-3


def test_a_constant_image_is_no_error(model):
    assert model.encode_image(torch.zeros(1, 1, 32, 32)).isfinite().all()


def test_an_embedding_does_not_depend_on_its_batch(model):
    image = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(model.encode_image(image)[1:2], model.encode_image(image[1:2]), rtol=1e-4, atol=1e-5)
    long = "nodule in the upper lobe"
    torch.testing.assert_close(model.encode_text(["mass", long])[:1], model.encode_text(["mass"]), rtol=1e-4, atol=1e-5)


def test_texts_of_any_number_and_length_embed_as_they_do_alone_and_in_their_order(model):
    sentence = "mild left nodule in the upper lobe with a smooth margin and no calcium beside a small effusion"
    words = sentence.split()
    texts = [" ".join(words[: 1 + number % 18] * (1 + number // 18)) for number in range(30)]
    alone = torch.cat([model.encode_text([text]) for text in texts])
    for count in (1, 23, 24, 30):
        torch.testing.assert_close(model.encode_text(texts[:count]), alone[:count], rtol=1e-4, atol=1e-5)


def test_no_batch_normalisation_and_no_parameter_without_gradient(model):
    model.train()
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    model.logits(model.encode_image(torch.randn(2, 1, 32, 32)), model.encode_text(["mass", "nodule"])).sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


@pytest.fixture
def local_encoders(tmp_path):
    vision = ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32,
                       patch_size=8)  # fmt: skip
    torch.manual_seed(1)
    ViTModel(vision).save_pretrained(tmp_path / "vit")
    text = BertConfig(vocab_size=60, hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(text).save_pretrained(tmp_path / "bert")
    return str(tmp_path / "vit"), str(tmp_path / "bert")


def test_local_hugging_face_encoders_bring_their_weights(local_encoders):
    vision, text = local_encoders
    tokenizer = Tokenizer.train(["nodule mass"], vocabulary=60, max_tokens=8)
    config = ModelConfig(image_size=32, embed_dim=8, max_tokens=8, vision=vision, text=text, grid=2)
    model = DualEncoder(config, tokenizer).eval()
    stored = ViTModel.from_pretrained(vision).state_dict()
    for name, value in model.image.backbone.state_dict().items():
        assert torch.equal(value, stored[name]), name
    assert model.encode_image(torch.randn(2, 1, 32, 32)).shape == (2, 8)
    # the resolved configuration alone builds it again, wherever the originals are
    moved = json.loads(model.config.model_dump_json().replace(vision, "/gone").replace(text, "/gone"))
    again = DualEncoder(ModelConfig.model_validate(moved), tokenizer, pretrained=False)
    again.load_state_dict(model.state_dict())


def test_an_encoder_that_is_not_there_is_a_clear_error():
    with pytest.raises(MedfilipError, match="/nowhere") as caught:
        build_vision(ModelConfig(vision="/nowhere"), pretrained=True)
    assert caught.value.code == ErrorCode.CONFIG_INVALID


def test_weights_as_a_pickle_are_not_read(local_encoders, tmp_path):
    vision = tmp_path / "vit"
    torch.save(ViTModel.from_pretrained(vision).state_dict(), vision / "pytorch_model.bin")
    (vision / "model.safetensors").unlink()
    with pytest.raises(MedfilipError, match="convert-weights"):
        build_vision(ModelConfig(image_size=32, vision=str(vision)), pretrained=True)
