"""Image and text tower in one joint space, with the learnable scale and bias of their logits.

Legend of tensor names: I images, N studies, H and W sides of an image, T texts, U distinct texts, K tokens, D joint
dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional

from medfilip.model.config import ModelConfig
from medfilip.model.encoders import build_text, build_vision
from medfilip.model.tokenizer import Tokenizer, Tokens

_MANY_TEXTS, _LENGTHS = 24, 3
_MAX_LOG_SCALE = math.log(100.0)  # as CLIP: beyond it the loss landscape becomes a staircase


class DualEncoder(nn.Module):
    """The model: two towers, one scale, one bias.

    Attributes
    ----------
    config
        The configuration with both backbones resolved: it is enough to build the model again.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, *, pretrained: bool = True) -> None:
        super().__init__()
        self.image, vision_config = build_vision(config, pretrained=pretrained)
        self.text, text_config = build_text(config, tokenizer.size, pretrained=pretrained)
        self.config = config.model_copy(update={"vision_config": vision_config, "text_config": text_config})
        self.tokenizer = tokenizer
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale)))
        self.bias = nn.Parameter(torch.tensor(config.logit_bias))

    def encode_image(self, pixels_I1HW: Tensor, study_I: Tensor | None = None, studies: int = 0) -> Tensor:
        """Embed grey images, or studies of several images.

        Parameters
        ----------
        pixels_I1HW
            Images.
        study_I, studies
            int64 index of the study that each image belongs to, and how many studies there are; every study needs an
            image. Without it every image stands for itself.

        Returns
        -------
        Tensor
            [N, D] of unit length, N images or studies: the views of a study are averaged before they are normalised.
        """
        return self.join(self.image(pixels_I1HW), study_I, studies)

    def join(self, image_ID: Tensor, study_I: Tensor | None = None, studies: int = 0) -> Tensor:
        """Pool the output of the image tower by study, and normalise it; see `encode_image`."""
        return functional.normalize(image_ID if study_I is None else _mean(image_ID, study_I, studies), dim=-1)

    def encode_tokens(self, tokens: Tokens) -> Tensor:
        """Embed texts that were tokenised before; [T, D] of unit length."""
        on_device = tokens.to(self.bias.device)
        # Divided weights are collected by all processes together, so that each must run the tower as often as others.
        many = len(on_device.ids_UK) >= _MANY_TEXTS and not isinstance(self.text, FSDPModule)
        embed = self._by_length if many and self.bias.device.type == "cpu" else self.text
        return functional.normalize(embed(on_device.ids_UK, on_device.mask_UK), dim=-1)[on_device.position_T]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed texts; [T, D] of unit length. Equal texts are computed once."""
        return self.encode_tokens(self.tokenizer.tokens(texts))

    def _by_length(self, ids_UK: Tensor, mask_UK: Tensor) -> Tensor:
        """Embed texts of like length together: a CPU pays for every token of padding, which are most of a batch."""
        length_U = mask_UK.sum(dim=1)
        parts = length_U.argsort(stable=True).tensor_split(_LENGTHS)
        embedded = []
        for part in parts:
            width = int(length_U[part].max())
            embedded.append(self.text(ids_UK[part, :width], mask_UK[part, :width]))
        return torch.cat(embedded)[torch.cat(parts).argsort()]

    def logits(self, image_ND: Tensor, text_TD: Tensor) -> Tensor:
        """Scaled and shifted cosines [N, T]: their sigmoid says how well a text describes an image."""
        return self.scale() * image_ND @ text_TD.T + self.bias

    @torch.no_grad()
    def centre(self, pixels_N1HW: Tensor, texts: Sequence[str]) -> None:
        """Shift both projections so that the mean embedding of a sample is zero: the last step of initialisation.

        Untrained towers map all chest images to nearly one direction, and all texts to another; on the unit sphere
        that common part hides what differs, and the first hundreds of steps go into removing it.
        """
        device = self.bias.device
        self.image.project.bias.sub_(self.image(pixels_N1HW.to(device)).mean(dim=0))
        if not texts:
            return
        ids_TK, mask_TK = self.tokenizer.encode(texts)
        self.text.project.bias.sub_(self.text(ids_TK.to(device), mask_TK.to(device)).mean(dim=0))

    def scale(self) -> Tensor:
        """Return the scale of the logits, at most 100."""
        return limited_scale(self.log_scale)


def limited_scale(log_scale: Tensor) -> Tensor:
    """Return the scale of the logits from its logarithm, at most 100."""
    return log_scale.clamp(max=_MAX_LOG_SCALE).exp()


def _mean(image_ID: Tensor, study_I: Tensor, studies: int) -> Tensor:
    total_ND = image_ID.new_zeros(studies, image_ID.shape[1]).index_add(0, study_I, image_ID)
    return total_ND / torch.bincount(study_I, minlength=studies).clamp(min=1)[:, None].to(image_ID.dtype)
