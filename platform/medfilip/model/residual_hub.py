"""The presets' image backbone as a `transformers` model, so that one loader reads every backbone by its folder.

Importing this module registers it; no code travels with a model.

Legend of tensor names: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from medfilip.model.residual import MODEL_TYPE, ResidualNet


class ResidualConfig(PretrainedConfig):  # type: ignore[misc]
    """Configuration of a `ResidualNet`; see there."""

    model_type = MODEL_TYPE

    def __init__(self, widths: Sequence[int] = (16, 32), depths: Sequence[int] = (0,), **other: Any) -> None:
        self.widths, self.depths = list(widths), list(depths)
        self.num_channels, self.hidden_size = 1, self.widths[-1]
        super().__init__(
            **{name: value for name, value in other.items() if name not in ("num_channels", "hidden_size")}
        )


class ResidualModel(PreTrainedModel):  # type: ignore[misc]
    """A `ResidualNet` that ``AutoModel`` loads."""

    config_class = ResidualConfig
    base_model_prefix = "residual"
    main_input_name = "pixel_values"

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__(config)
        self.net = ResidualNet(config.widths, config.depths)
        self.post_init()

    @classmethod
    def of(cls, net: ResidualNet) -> ResidualModel:
        """Wrap a net without copying its weights."""
        model = cls(ResidualConfig(net.widths, net.depths))
        model.net = net
        return model

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        """Encode grey images [N, 1, H, W]; ``last_hidden_state`` is [N, C, H', W']."""
        return BaseModelOutput(last_hidden_state=self.net(pixel_values))


AutoConfig.register(MODEL_TYPE, ResidualConfig, exist_ok=True)
AutoModel.register(ResidualConfig, ResidualModel, exist_ok=True)
