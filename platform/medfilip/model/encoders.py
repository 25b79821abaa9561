"""The two towers: any Hugging Face vision backbone and text encoder, or small ones from scratch.

The presets use layer normalisation only: batch normalisation would make two processes differ from one, and its
running statistics drift when a model is evaluated without ``eval()``. Drop-out is off, since the texts themselves are
drawn among variants, and a step then is a pure function of model and batch.

Legend of tensor names: N images, C channels, H height, W width, T texts, K tokens, D joint dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, BertConfig, ConvNextConfig

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.config import ModelConfig

_VISION: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_sizes": [32, 64, 96], "depths": [1, 1, 1], "patch_size": 2},
    "small": {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 6, 2], "patch_size": 4},
}
_WORD_DEVIATION = 0.1
_STEM_WIDTH = {"tiny": 16, "small": 32}
_CONTRAST = 9  # side of the window whose mean is taken away, in pixels
_TEXT: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 1024},
}


class Stem(nn.Module):
    """First layer of the encoders from scratch: the image and its local contrast at full resolution.

    A pneumothorax is a faint edge and a nodule a few pixels of a small input; a backbone that begins with large
    patches of plain grey learns neither from few images. Measured on 140 phantoms at 64 px with direct supervision:
    mean AUROC .917 with this stem against .864 without, pneumothorax .99 against .85.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, width, kernel_size=3, padding=1)

    def forward(self, grey_N1HW: Tensor) -> Tensor:
        """Return [N, width, H, W]."""
        half = _CONTRAST // 2
        mean_N1HW = functional.avg_pool2d(grey_N1HW, _CONTRAST, stride=1, padding=half, count_include_pad=False)
        detail_N1HW = grey_N1HW - mean_N1HW
        detail_N1HW = detail_N1HW / (detail_N1HW.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 1e-6)
        return functional.gelu(self.convolution(torch.cat([grey_N1HW, detail_N1HW], dim=1)))


class ImageEncoder(nn.Module):
    """Stem → backbone → cells of a coarse grid → joint space.

    Global averaging would forget where something is, and "left" against "right" is half of what reports say. The
    cells keep place; beside them the strongest response anywhere keeps small findings from drowning in the mean.
    """

    def __init__(
        self, stem: nn.Module | None, backbone: nn.Module, *, channels: int, width: int, grid: int, dim: int
    ) -> None:
        super().__init__()
        self.stem, self.backbone, self.channels, self.grid = stem, backbone, channels, grid
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width * (grid**2 + 1), dim)

    def forward(self, pixels_N1HW: Tensor) -> Tensor:
        """Encode grey images of any value range; [N, D], not normalised."""
        map_NCHW = self.features(pixels_N1HW)
        cells_NCGG = functional.adaptive_avg_pool2d(map_NCHW, self.grid)
        strongest_NC1 = map_NCHW.flatten(2).amax(dim=2, keepdim=True)
        cells_NXC = torch.cat([cells_NCGG.flatten(2), strongest_NC1], dim=2).transpose(1, 2)
        projected: Tensor = self.project(self.norm(cells_NXC).flatten(1))
        return projected

    def features(self, pixels_N1HW: Tensor) -> Tensor:
        """Return the last feature map [N, C, H', W'] of images standardised one by one."""
        # Exposure and bit depth differ between devices and carry no diagnosis.
        mean = pixels_N1HW.mean(dim=(1, 2, 3), keepdim=True)
        deviation = pixels_N1HW.std(dim=(1, 2, 3), keepdim=True, correction=0)
        standard_N1HW = (pixels_N1HW - mean) / (deviation + 1e-6)
        input_NCHW = standard_N1HW.expand(-1, self.channels, -1, -1) if self.stem is None else self.stem(standard_N1HW)
        hidden: Tensor = self.backbone(input_NCHW).last_hidden_state
        return hidden if hidden.ndim == 4 else _tokens_to_map(hidden)


class TextEncoder(nn.Module):
    """Text encoder → mean and strongest response over tokens → joint space."""

    def __init__(self, backbone: nn.Module, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(2 * width, config.embed_dim)

    def forward(self, ids_TK: Tensor, mask_TK: Tensor) -> Tensor:
        """Encode token ids; [T, D], not normalised."""
        hidden_TKC = self.backbone(input_ids=ids_TK, attention_mask=mask_TK).last_hidden_state
        weight_TK1 = mask_TK[:, :, None].to(hidden_TKC.dtype)
        mean_TC = (hidden_TKC * weight_TK1).sum(dim=1) / weight_TK1.sum(dim=1).clamp(min=1)
        # The mean hides one "no" among fifteen words; the strongest response of any word keeps it.
        strongest_TC = hidden_TKC.masked_fill(weight_TK1 == 0, float("-inf")).amax(dim=1)
        pooled_T2C = torch.stack([mean_TC, strongest_TC], dim=1)
        projected: Tensor = self.project(self.norm(pooled_T2C).flatten(1))
        return projected


def build_vision(config: ModelConfig, *, pretrained: bool) -> tuple[ImageEncoder, dict[str, Any]]:
    """Build the image tower and return it with the resolved configuration of its backbone.

    ``pretrained`` reads the weights of ``config.vision`` too; a checkpoint that is being loaded brings its own.
    """
    stem = Stem(_STEM_WIDTH[config.preset]) if config.vision is None else None
    if config.vision_config is not None:
        resolved = _from_dict(config.vision_config)
    elif config.vision is not None:
        resolved = _from_name(config.vision)
    else:
        sizes = _VISION[config.preset]
        resolved = ConvNextConfig(
            num_channels=_STEM_WIDTH[config.preset], num_stages=len(sizes["depths"]), drop_path_rate=0.0,
            layer_scale_init_value=0.0, image_size=config.image_size, **sizes,
        )  # fmt: skip
    backbone = _build(config.vision if pretrained else None, resolved)
    sizes_of_stages = getattr(resolved, "hidden_sizes", None)
    width = int(sizes_of_stages[-1] if sizes_of_stages else resolved.hidden_size)
    channels = int(getattr(resolved, "num_channels", 3))
    encoder = ImageEncoder(stem, backbone, channels=channels, width=width, grid=config.grid, dim=config.embed_dim)
    return encoder, resolved.to_dict()


def build_text(config: ModelConfig, vocabulary: int, *, pretrained: bool) -> tuple[TextEncoder, dict[str, Any]]:
    """Build the text tower and return it with the resolved configuration of its backbone."""
    if config.text_config is not None:
        resolved = _from_dict(config.text_config)
    elif config.text is not None:
        resolved = _from_name(config.text)
    else:
        resolved = BertConfig(
            vocab_size=vocabulary, max_position_embeddings=config.max_tokens, type_vocab_size=1, pad_token_id=0,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **_TEXT[config.preset],
        )  # fmt: skip
    backbone = _build(config.text if pretrained else None, resolved)
    if config.text is None:
        # Positions start as large as words otherwise, and make all texts alike; words should lead.
        nn.init.normal_(backbone.get_input_embeddings().weight, std=_WORD_DEVIATION)  # type: ignore[operator]
    return TextEncoder(backbone, int(resolved.hidden_size), config), resolved.to_dict()


def _from_dict(stored: dict[str, Any]) -> Any:
    values = dict(stored)
    return AutoConfig.for_model(values.pop("model_type"), **values)


def _from_name(name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(name) from error


def _build(name: str | None, resolved: Any) -> nn.Module:
    try:
        if name is None:
            model = AutoModel.from_config(resolved, trust_remote_code=False)
        else:
            model = AutoModel.from_pretrained(name, config=resolved, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(name or str(resolved.model_type)) from error
    # The poolers of these architectures are not used; their parameters would never get a gradient.
    if getattr(model, "pooler", None) is not None and isinstance(model.pooler, nn.Module):
        model.pooler = None
    if resolved.model_type in ("convnext", "convnextv2"):
        model.layernorm = nn.Identity()  # there it serves the pooler only
    assert isinstance(model, nn.Module)
    return model


def _tokens_to_map(hidden_NLC: Tensor) -> Tensor:
    """Arrange the patch tokens of a transformer as a square map, leaving out leading class or register tokens."""
    side = int(hidden_NLC.shape[1] ** 0.5)
    patches_NLC = hidden_NLC[:, -(side * side) :]
    return patches_NLC.transpose(1, 2).reshape(len(hidden_NLC), -1, side, side)


def _unreadable(name: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.CONFIG_INVALID,
        f"The encoder '{name}' is no Hugging Face model that can be read without remote code.",
        fix="Give a local folder with config.json and model.safetensors, or a name that is in the local cache.",
    )
