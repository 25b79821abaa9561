"""What a model is made of, as one validated object that travels in every checkpoint."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from medfilip.core.settings import Settings

Preset = Literal["tiny", "small", "base"]


class ModelConfig(Settings):
    """Architecture of a dual encoder.

    Without ``vision`` and ``text`` the preset's encoders are built from scratch. With them, Hugging Face models are
    read from a name or a local path; their resolved configurations are kept in ``vision_config`` and ``text_config``,
    so that a checkpoint loads without the originals.

    Known to fit, by name where there is a network (read their terms before use): ``vision`` takes
    ``microsoft/resnet-50``, ``google/vit-base-patch16-224-in21k``, ``facebook/dinov2-with-registers-base`` and
    ``facebook/dinov2-base`` (all Apache-2.0); ``text`` takes
    ``microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract`` (MIT) and other encoders like BERT or RoBERTa. Set
    ``image_size=224`` or more with them; positions are interpolated from the size they were trained at. Only
    safetensors are read: ``medfilip convert-weights --into`` makes a folder of what is published as a ``.bin`` alone.
    """

    preset: Preset = Field(default="tiny", description="encoders from scratch: tiny or small (a CPU), base (a GPU)")
    image_size: int = Field(default=64, ge=32, le=1024, description="side of the square input, in pixels")
    embed_dim: int = Field(default=128, ge=8, le=4096, description="dimension of the joint embedding")
    vision: str | None = Field(
        default=None, description="Hugging Face vision model, a local folder or a name such as microsoft/resnet-50"
    )
    text: str | None = Field(
        default=None,
        description="Hugging Face text encoder, a local folder or a name such as google-bert/bert-base-uncased",
    )
    max_tokens: int = Field(default=64, ge=8, le=512, description="texts are cut to this many tokens")
    vocabulary: int = Field(default=4096, ge=256, le=100_000, description="size limit of a tokenizer trained here")
    grid: int = Field(default=4, ge=1, le=16, description="features are pooled to grid x grid cells, which keep place")
    logit_scale: float = Field(default=10.0, gt=0, le=100, description="first value of the learnable scale")
    logit_bias: float = Field(default=0.0, ge=-20, le=20, description="first value of the learnable bias")
    vision_config: dict[str, Any] | None = Field(default=None, description="resolved configuration; filled in")
    text_config: dict[str, Any] | None = Field(default=None, description="resolved configuration; filled in")
