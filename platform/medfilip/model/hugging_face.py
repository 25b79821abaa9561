"""A whole exported model for users of `transformers`: import this module, then ``AutoModel.from_pretrained(folder)``.

Importing registers the model; a folder holds no code and no ``auto_map``, so nothing of an author's is ever run.

Legend of tensor names: N images, T texts, K tokens, S side of the input, D joint dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from medfilip.model.config import ModelConfig
from medfilip.model.dual_encoder import DualEncoder, limited_scale
from medfilip.model.encoders import build_text, build_vision

MODEL_TYPE = "medfilip"


class MedfilipConfig(PretrainedConfig):  # type: ignore[misc]
    """Configuration of a `MedfilipModel`.

    Parameters
    ----------
    encoders
        A `ModelConfig` with resolved backbones, as JSON data.
    vocabulary
        Number of tokens.
    """

    model_type = MODEL_TYPE

    def __init__(self, encoders: dict[str, Any] | None = None, vocabulary: int = 256, **other: Any) -> None:
        self.encoders, self.vocabulary = encoders or ModelConfig().model_dump(mode="json"), vocabulary
        super().__init__(**other)


@dataclass
class MedfilipOutput(ModelOutput):  # type: ignore[misc]
    """Logits and embeddings.

    Attributes
    ----------
    logits_per_image
        [N, T]: their sigmoid says how well a text describes an image.
    logits_per_text
        [T, N].
    image_embeds, text_embeds
        [N, D] and [T, D], unit length.
    """

    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None


class MedfilipModel(PreTrainedModel):  # type: ignore[misc]
    """Both towers behind the interface of CLIP-like models; the tokenizer is ``AutoTokenizer``'s, from the same folder.

    Examples
    --------
    >>> import medfilip.model.hugging_face
    >>> from transformers import AutoModel, AutoTokenizer
    >>> model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    >>> texts = tokenizer(["mass", "no mass"], padding=True, truncation=True, return_tensors="pt")
    >>> model(pixel_values=pixels, **texts).logits_per_image.shape
    torch.Size([1, 2])
    """

    config_class = MedfilipConfig
    base_model_prefix = "medfilip"
    main_input_name = "pixel_values"

    def __init__(self, config: MedfilipConfig) -> None:
        super().__init__(config)
        encoders = ModelConfig.model_validate(config.encoders)
        self.image, _ = build_vision(encoders, pretrained=False)
        self.text, _ = build_text(encoders, config.vocabulary, pretrained=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(encoders.logit_scale)))
        self.bias = nn.Parameter(torch.tensor(encoders.logit_bias))
        self.post_init()

    @classmethod
    def of(cls, model: DualEncoder, config: ModelConfig | None = None) -> MedfilipModel:
        """Return a dual encoder as such a model, with copies of its weights; ``config`` stands for its own."""
        made = cls(MedfilipConfig((config or model.config).model_dump(mode="json"), model.tokenizer.size))
        made.load_state_dict(model.state_dict())
        made.eval()
        return made

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Embed grey images [N, 1, S, S] of `medfilip.imaging.preprocess.to_model`; [N, D], unit length."""
        return functional.normalize(self.image(pixel_values), dim=-1)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embed token ids [T, K]; [T, D], unit length. Without a mask every token counts."""
        mask_TK = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return functional.normalize(self.text(input_ids, mask_TK), dim=-1)

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> MedfilipOutput:
        """Score N images against T texts; see `MedfilipOutput`."""
        image_ND = self.get_image_features(pixel_values)
        text_TD = self.get_text_features(input_ids, attention_mask)
        logits_NT = limited_scale(self.log_scale) * image_ND @ text_TD.T + self.bias
        return MedfilipOutput(
            logits_per_image=logits_NT, logits_per_text=logits_NT.T, image_embeds=image_ND, text_embeds=text_TD
        )


AutoConfig.register(MODEL_TYPE, MedfilipConfig, exist_ok=True)
AutoModel.register(MedfilipConfig, MedfilipModel, exist_ok=True)
