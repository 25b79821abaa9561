"""The two towers: any Hugging Face vision backbone and text encoder, or small ones from scratch.

The presets use layer normalisation only: batch normalisation would make two processes differ from one, and its
running statistics drift when a model is evaluated without ``eval()``. Drop-out is off, since the texts themselves are
drawn among variants, and a step then is a pure function of model and batch.

Legend of tensor names: N images, C channels, H height, W width, T texts, K tokens, D joint dimension.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, BertConfig

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model import residual_hub  # noqa: F401 - registers the presets' backbone
from medfilip.model.config import ModelConfig
from medfilip.model.residual import MODEL_TYPE, ResidualNet

_VISION: dict[str, dict[str, Any]] = {
    "tiny": {"widths": [16, 32, 64, 96], "depths": [0, 1, 1]},
    "small": {"widths": [16, 32, 64, 128, 192], "depths": [0, 1, 2, 2]},
    "base": {"widths": [32, 64, 128, 256, 512], "depths": [1, 2, 4, 2]},
}
_WORD_DEVIATION = 0.1
_OFFSET_POSITIONS = frozenset(
    {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert", "longformer", "mpnet",
     "data2vec-text", "ibert"}
)  # fmt: skip
_TEXT: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192},
    "small": {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384},
    "base": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048},
}

_MAX_TEXTURE, _MIN_CHANNELS = 512, 16


class ImageEncoder(nn.Module):
    """Backbone → cells of a coarse grid → joint space.

    Global averaging would forget where something is, and "left" against "right" is half of what reports say. The
    cells keep place; beside them the strongest response anywhere keeps small findings from drowning in the mean.
    """

    def __init__(self, backbone: nn.Module, *, channels: int, width: int, grid: int, dim: int) -> None:
        super().__init__()
        self.backbone, self.channels, self.grid = backbone, channels, grid
        # Transformers learn positions for one input size; those that can be asked for another one are.
        resizes = "interpolate_pos_encoding" in inspect.signature(backbone.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if resizes else {}
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width * (grid**2 + 1), dim)

    def forward(self, pixels_N1HW: Tensor) -> Tensor:
        """Encode grey images of any value range; [N, D], not normalised."""
        return self.pool(self.features(pixels_N1HW))

    def pool(self, map_NCHW: Tensor) -> Tensor:
        """Pool a feature map into the joint space; [N, D], not normalised."""
        cells_NCGG = functional.adaptive_avg_pool2d(map_NCHW, self.grid)
        strongest_NC1 = map_NCHW.flatten(2).amax(dim=2, keepdim=True)
        cells_NXC = torch.cat([cells_NCGG.flatten(2), strongest_NC1], dim=2).transpose(1, 2)
        projected: Tensor = self.project(self.norm(cells_NXC).flatten(1))
        return projected

    def view_and_texture(self, pixels_N1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images, and say what they are made of rather than what they show.

        Returns
        -------
        view_ND
            As `forward`.
        texture_NF
            Mean and standard deviation of each channel of a middle feature map: what `medfilip.model.familiarity`
            tells strangers by. A joint embedding keeps what reports speak of and loses that a picture is none of its
            kind: it told 61 % of real radiographs from phantoms at a false alarm in sixty, a middle map all of them.
        """
        maps = self.pyramid(pixels_N1HW)
        return self.pool(maps[-1]), _texture(maps)

    def features(self, pixels_N1HW: Tensor) -> Tensor:
        """Return the last feature map [N, C, H', W'] of images standardised one by one."""
        hidden = self._hidden(_standardised(pixels_N1HW))
        return hidden if hidden.ndim == 4 else _tokens_to_map(hidden, self._side(pixels_N1HW, hidden))

    def pyramid(self, pixels_N1HW: Tensor) -> list[Tensor]:
        """Return feature maps [N, C, H', W'] from fine to coarse, one of each size, the last that the backbone makes.

        Where the backbone makes none of the image's own size, the image is the first. A transformer has one size: its
        last patches stand beside the image alone.
        """
        standard_N1HW = _standardised(pixels_N1HW)
        if isinstance(self.backbone, ResidualNet):
            maps = self.backbone.maps(standard_N1HW)
        else:
            found = self.backbone(
                standard_N1HW.expand(-1, self.channels, -1, -1), output_hidden_states=True, **self.options
            )
            last = found.last_hidden_state
            maps = [_tokens_to_map(last, self._side(pixels_N1HW, last))] if last.ndim == 3 else [
                *(one for one in found.hidden_states if one.ndim == 4), last,
            ]  # fmt: skip
        by_size = {tuple(one.shape[2:]): one for one in maps}
        if tuple(pixels_N1HW.shape[2:]) not in by_size:
            return [standard_N1HW, *by_size.values()]
        return list(by_size.values())

    @torch.no_grad()
    def patches(self, pixels_N1HW: Tensor) -> int | None:
        """Return how many patches the side of an image has; ``None`` if the backbone gives a map and not a sequence."""
        hidden = self._hidden(pixels_N1HW)
        return None if hidden.ndim == 4 else self._side(pixels_N1HW, hidden)

    def _hidden(self, grey_N1HW: Tensor) -> Tensor:
        found = self.backbone(grey_N1HW.expand(-1, self.channels, -1, -1), **self.options)
        hidden: Tensor = found if isinstance(found, Tensor) else found.last_hidden_state
        return hidden

    def _side(self, pixels_N1HW: Tensor, hidden_NLC: Tensor) -> int:
        # The length alone does not say it: four patches, a class token and four registers are nine.
        size = getattr(self.backbone.config, "patch_size", None)
        side = pixels_N1HW.shape[-1] // size if isinstance(size, int) else 0
        return side if 0 < side**2 <= hidden_NLC.shape[1] else math.isqrt(hidden_NLC.shape[1])

    def train(self, mode: bool = True) -> ImageEncoder:
        """Switch to training, with the running statistics of batch normalisation left as they are.

        A ResNet-50 that was trained elsewhere keeps its statistics: computed over the part of a batch that one process
        holds, they would make two processes differ from one, and drift.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


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
    stored = config.vision_config
    if config.vision is None and (stored is None or stored["model_type"] == MODEL_TYPE):
        net = ResidualNet.from_config(stored or _VISION[config.preset])
        return ImageEncoder(
            net, channels=1, width=net.widths[-1], grid=config.grid, dim=config.embed_dim
        ), net.to_config()
    resolved = _from_dict(stored) if stored is not None else _from_name(str(config.vision))
    backbone = _build(config.vision if pretrained else None, _without_dropout(resolved))
    sizes_of_stages = getattr(resolved, "hidden_sizes", None)
    width = int(sizes_of_stages[-1] if sizes_of_stages else resolved.hidden_size)
    channels = int(getattr(resolved, "num_channels", 3))
    encoder = ImageEncoder(backbone, channels=channels, width=width, grid=config.grid, dim=config.embed_dim)
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
    _check_length(resolved, config)
    backbone = _build(config.text if pretrained else None, _without_dropout(resolved))
    if config.text is None:
        # Positions start as large as words otherwise, and make all texts alike; words should lead.
        nn.init.normal_(backbone.get_input_embeddings().weight, std=_WORD_DEVIATION)  # type: ignore[operator]
    return TextEncoder(backbone, int(resolved.hidden_size), config), resolved.to_dict()


def checkpoint_activations(encoder: ImageEncoder | TextEncoder) -> None:
    """Recompute activations in the backward pass instead of keeping them: a third more time for far less memory.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if the backbone cannot.
    """
    backbone: Any = encoder.backbone
    if not getattr(backbone, "supports_gradient_checkpointing", False):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The backbone {type(backbone).__name__} cannot recompute its activations.",
            fix="Set activation_checkpointing=false, and micro_batch to what fits into memory.",
        )
    if hasattr(backbone, "activation_checkpointing_enable"):
        backbone.activation_checkpointing_enable({"use_reentrant": False})
    else:  # its name in transformers before 5.20
        backbone.gradient_checkpointing_enable({"use_reentrant": False})


def _without_dropout(resolved: Any) -> Any:
    """Switch every kind of drop-out off: a step is a function of model and batch, whoever computes which part of it."""
    for name, value in resolved.to_dict().items():
        if isinstance(value, float) and ("drop" in name) and value:
            setattr(resolved, name, 0.0)
    return resolved


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
            model = AutoModel.from_config(resolved, trust_remote_code=False, dtype=torch.float32)
        else:
            # Some are published in half precision, which serves but does not learn.
            model = AutoModel.from_pretrained(
                name, config=resolved, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(name or str(resolved.model_type)) from error
    # Poolers are not used, and the parameters of those that have any would never get a gradient. Most architectures
    # can do without one, ResNets call theirs in any case: a module that does nothing suits both.
    if isinstance(getattr(model, "pooler", None), nn.Module) and any(True for _ in model.pooler.parameters()):
        model.pooler = nn.Identity()
    if resolved.model_type in ("convnext", "convnextv2"):
        model.layernorm = nn.Identity()  # there it serves the pooler only
    for part, parameter in model.named_parameters():
        if part.endswith("mask_token"):  # stands for hidden patches, and none are hidden here: it gets no gradient
            parameter.requires_grad_(requires_grad=False)
    assert isinstance(model, nn.Module)
    return model


def _check_length(resolved: Any, config: ModelConfig) -> None:
    """Refuse texts longer than a text encoder has positions for; it would fail in the middle of an epoch."""
    positions = getattr(resolved, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:  # relative positions have no limit
        return
    # Encoders of the RoBERTa family number positions from behind the padding id.
    if resolved.model_type in _OFFSET_POSITIONS:
        positions -= int(resolved.pad_token_id or 0) + 1
    if config.max_tokens > positions:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"model.max_tokens is {config.max_tokens}; the text encoder '{config.text or resolved.model_type}' reads "
            f"at most {positions} tokens.",
            fix=f"Set model.max_tokens={positions} or less.",
        )


def _texture(maps: list[Tensor]) -> Tensor:
    """Summarise the last map but one, or one before it that is narrow enough; [N, F] with F ≤ `_MAX_TEXTURE`."""
    fitting = [one for one in maps[:-1] if _MIN_CHANNELS <= one.shape[1] <= _MAX_TEXTURE // 2]
    map_NCHW = fitting[-1] if fitting else maps[-1]
    texture_NF = torch.cat([map_NCHW.mean(dim=(2, 3)), map_NCHW.std(dim=(2, 3))], dim=1)
    width = texture_NF.shape[1]
    if width <= _MAX_TEXTURE:
        return texture_NF
    # Distances survive a fixed random projection (Johnson and Lindenstrauss 1984); a covariance of 1,536 columns would
    # need thousands of images.
    generator = torch.Generator().manual_seed(0)
    mixing_FF = torch.randn(width, _MAX_TEXTURE, generator=generator) / width**0.5
    mixed_NF: Tensor = texture_NF @ mixing_FF.to(texture_NF)
    return mixed_NF


def _standardised(pixels_N1HW: Tensor) -> Tensor:
    # Exposure and bit depth differ between devices and carry no diagnosis.
    mean = pixels_N1HW.mean(dim=(1, 2, 3), keepdim=True)
    deviation = pixels_N1HW.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (pixels_N1HW - mean) / (deviation + 1e-6)


def _tokens_to_map(hidden_NLC: Tensor, side: int) -> Tensor:
    """Arrange the patch tokens of a transformer as a square map, leaving out leading class or register tokens."""
    patches_NLC = hidden_NLC[:, -(side * side) :]
    return patches_NLC.transpose(1, 2).reshape(len(hidden_NLC), -1, side, side)


def _unreadable(name: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.CONFIG_INVALID,
        f"The encoder '{name}' is no Hugging Face model that can be read without remote code.",
        fix="Give a local folder with config.json and model.safetensors, or a name that is in the local cache. "
        "'medfilip convert-weights' makes such a folder from a pytorch_model.bin.",
    )
