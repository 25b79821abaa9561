"""Hugging Face encoders with random weights in local folders, small enough for unit tests."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
)

_SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {
    "resnet": lambda: ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
    "convnext": lambda: ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)),
    # made for 48 px, used at 32
    "vit": lambda: ViTModel(ViTConfig(**_SMALL, intermediate_size=32, image_size=48, patch_size=8)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**_SMALL, image_size=56, patch_size=14)),
    # at 32 px 4 patches, 1 class token and 4 registers: nine tokens that look like a square
    "dinov2_registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**_SMALL, image_size=56, patch_size=14)
    ),
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "nodule", "Nodule", "mass", "no", "left", "effusion", "##s"]


def save_vision(kind, folder):
    torch.manual_seed(1)
    model = VISION[kind]()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    model.save_pretrained(folder)
    return str(folder)


def save_bert(folder, *, lowercase=True):
    """Save a BERT whose tokenizer.json pads to a fixed length, as many published ones do."""
    torch.manual_seed(2)
    BertModel(
        BertConfig(vocab_size=len(WORDS), intermediate_size=32, max_position_embeddings=48, **_SMALL)
    ).save_pretrained(folder)
    backend = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    backend.enable_padding(pad_id=0, pad_token="[PAD]", length=12)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        f'{{"tokenizer_class": "BertTokenizer", "do_lower_case": {str(lowercase).lower()}}}'
    )
    return str(folder)


def save_roberta(folder):
    """Save a RoBERTa with byte-level tokens; it reads 48 tokens."""
    torch.manual_seed(3)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    config = RobertaConfig(
        vocab_size=len(letters), intermediate_size=32, max_position_embeddings=50, pad_token_id=1, **_SMALL
    )
    RobertaModel(config).save_pretrained(folder)
    backend = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    return str(folder)
