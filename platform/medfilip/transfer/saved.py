"""A fine-tuned model as a folder, and how it is used again.

::

    from medfilip.transfer.saved import load
    model = load(folder)
    model.probabilities("image.dcm")   # of a classifier: label → probability
    model.mask("image.dcm")            # of a segmenter: bool [H, W], in the pixels of the image

Legend of tensor names: S side of the input, H and W sides of an image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings
from medfilip.imaging.given import GivenImage, radiograph_of
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE, letterbox, to_model, to_store
from medfilip.model.checkpoint import WEIGHTS, read_files, write_files
from medfilip.model.config import ModelConfig
from medfilip.model.encoders import build_vision
from medfilip.transfer.classifier import Classifier
from medfilip.transfer.segmenter import Segmenter

CONFIG, NUMBERS, CARD = "config.json", "metrics.json", "README.md"


class SavedConfig(Settings):
    """What a fine-tuned model is built from.

    Attributes
    ----------
    labels
        Of the logits, or the one category that is segmented.
    width
        Of the decoder; ``None`` for a classifier.
    threshold, area
        What makes a mask: `medfilip.transfer.dice.Cut`.
    synthetic
        Whether it was trained on phantoms.
    """

    labels: tuple[str, ...]
    model: ModelConfig
    width: int | None = None
    threshold: float = 0.5
    area: float = 0.0
    synthetic: bool = False


def saved_files(module: nn.Module, config: SavedConfig, record: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a fine-tuned model, for `save` or another place."""
    weights = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    return {
        CONFIG: config.model_dump_json(indent=2).encode(),
        WEIGHTS: safetensors.torch.save(weights),
        NUMBERS: json.dumps(dict(record), indent=2, sort_keys=True).encode(),
        CARD: _card(config, record).encode(),
    }


def save(folder: Path, module: nn.Module, config: SavedConfig, record: Mapping[str, Any]) -> None:
    """Write a fine-tuned model; ``record`` is what its cell tells of itself."""
    write_files(folder, saved_files(module, config, record))


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model; its probabilities are not calibrated."""

    module: nn.Module
    config: SavedConfig

    @property
    def labels(self) -> tuple[str, ...]:
        """What it knows."""
        return self.config.labels

    def probabilities(self, image: GivenImage) -> dict[str, float]:
        """Return label → probability, of a classifier; images as `medfilip.load` takes them."""
        if self.config.width is not None:
            raise MedfilipError(ErrorCode.REQUEST_INVALID, "A segmenter gives no probabilities.", fix="Ask for mask().")
        logits_L = self._run(_pixels(image))[0]
        return dict(zip(self.labels, torch.sigmoid(logits_L).tolist(), strict=True))

    def mask(self, image: GivenImage) -> NDArray[np.bool_]:
        """Return where a segmenter sees its category, bool [H, W] in the pixels of the upright image."""
        if self.config.width is None:
            raise MedfilipError(
                ErrorCode.REQUEST_INVALID, "A classifier gives no mask.", fix="Ask for probabilities()."
            )
        pixels = _pixels(image)
        probability_11SS = torch.sigmoid(self._run(pixels))
        size = self.config.model.image_size
        marked = probability_11SS >= self.config.threshold
        if float(marked.sum()) < self.config.area * size**2:
            return np.zeros(pixels.shape, np.bool_)
        shape = to_store(pixels).shape
        top, left, height, width = letterbox((shape[0], shape[1]), size)
        inside = probability_11SS[:, :, top : top + height, left : left + width]
        whole = functional.interpolate(inside, size=pixels.shape, mode="bilinear", align_corners=False)
        found: NDArray[np.bool_] = (whole[0, 0] >= self.config.threshold).numpy()
        return found

    @torch.no_grad()
    def _run(self, pixels: NDArray[Any]) -> torch.Tensor:
        model_input = to_model(to_store(pixels, DEFAULT_STORE_SIZE), self.config.model.image_size)
        found: torch.Tensor = self.module(torch.from_numpy(model_input)[None])
        return found


def load(folder: str | Path) -> FineTuned:
    """Load a fine-tuned model, in eval mode and on the CPU, after every hash has been verified.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID``, naming what is missing, changed or unreadable.
    """
    files = read_files(Path(folder), (CONFIG, WEIGHTS))
    try:
        config = SavedConfig.model_validate_json(files[CONFIG])
        module = build(config)
        module.load_state_dict(safetensors.torch.load(files[WEIGHTS]))
    except (ValidationError, ValueError, RuntimeError, KeyError) as error:
        raise MedfilipError(
            ErrorCode.CHECKPOINT_INVALID,
            f"{folder} holds no fine-tuned model that this version can build.",
            fix="Give the folder 'model' or 'segmenter' of a finetune run.",
        ) from error
    return FineTuned(module.eval(), config)


def build(config: SavedConfig) -> nn.Module:
    """Build a module whose weights are to be loaded."""
    tower, _ = build_vision(config.model, pretrained=False)
    if config.width is None:
        return Classifier(tower, len(config.labels))
    return Segmenter(tower, config.model.image_size, config.width)


def _pixels(image: GivenImage) -> NDArray[Any]:
    limits = ImageLimits()
    return radiograph_of(image, limits, shared_decoder(limits)).pixels


def _card(config: SavedConfig, record: Mapping[str, Any]) -> str:
    kind = "Segmentation" if config.width is not None else "Classification"
    data = "**synthetic training data**: worthless for patients" if config.synthetic else "a licensed corpus"
    call = "mask" if config.width is not None else "probabilities"
    return f"""# {kind} of {", ".join(config.labels)}

Research use only. Not a medical device. Not calibrated.

| | |
|---|---|
| training data | {data}, {record["images"]} images of {record["patients"]} patients |
| began with | {record["source"]}, weights {record["weights"][:16]} |
| best step | {record["best_step"]} of {record["steps"]}, chosen on the validation split |
| input | {config.model.image_size} px |

```python
from medfilip.transfer.saved import load

print(load("THIS FOLDER").{call}("image.dcm"))
```
"""
