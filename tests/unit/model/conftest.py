"""A small model that several test modules share."""

from __future__ import annotations

import pytest
import torch

from medfilip.model.config import ModelConfig
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.tokenizer import Tokenizer

TEXTS = ["left pleural effusion", "no pleural effusion", "nodule in the upper lobe", "cardiomegaly", "possible mass"]


@pytest.fixture
def model() -> DualEncoder:
    """An untrained model with a fixed seed."""
    config = ModelConfig(image_size=32, embed_dim=16, max_tokens=16, vocabulary=256)
    tokenizer = Tokenizer.train(TEXTS, vocabulary=config.vocabulary, max_tokens=config.max_tokens)
    torch.manual_seed(0)
    return DualEncoder(config, tokenizer).eval()
