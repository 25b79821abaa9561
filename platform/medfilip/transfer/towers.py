"""Image towers to start from, each with proof of what it holds.

The hash of a tower's weights is in every result. For a checkpoint it is computed twice, from the model that is about
to be trained and from the file that was published: if loading changed, skipped or mixed up a tensor, they differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_file
from medfilip.model.checkpoint import WEIGHTS, load_checkpoint, read_files
from medfilip.model.config import ModelConfig
from medfilip.model.encoders import ImageEncoder, build_vision
from medfilip.training.order import draw
from medfilip.transfer.settings import Init

_TOWER = "image."
_SIGNED = 1 << 63


@dataclass(frozen=True)
class Start:
    """A tower before its first step.

    Attributes
    ----------
    tower
        In eval mode, on the CPU.
    config
        What it is built from again.
    weights
        SHA-256 of its weights.
    source
        What they are, in a few words.
    """

    tower: ImageEncoder
    config: ModelConfig
    weights: str
    source: str


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: names, types, shapes and bytes, whatever the order and the device."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def stored_tower_hash(checkpoint: Path) -> str:
    """Return `weights_hash` of the image tower in a checkpoint's file, without building a model."""
    tensors = safetensors.torch.load(read_files(checkpoint)[WEIGHTS])
    return weights_hash({name.removeprefix(_TOWER): one for name, one in tensors.items() if name.startswith(_TOWER)})


def start(init: Init, checkpoint: Path, seed: int, init_from: str | None = None) -> Start:
    """Build the tower of an initialisation; all have the checkpoint's input size, and joint dimension.

    Parameters
    ----------
    init
        ``checkpoint``: its weights. ``random``: its architecture, drawn from the seed. ``imagenet``: the Hugging Face
        model ``init_from`` with its weights, below a projection drawn from the seed.
    checkpoint
        Local folder.
    seed
        Of what is drawn.
    init_from
        Name or folder of a Hugging Face vision model.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID`` if the checkpoint is damaged or the tower is not what its file holds;
        ``CONFIG_INVALID`` if ``init_from`` is missing or cannot be read.
    """
    if init == "checkpoint":
        return _of_checkpoint(checkpoint)
    config = _config(checkpoint)
    if init == "imagenet":
        if init_from is None:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                "The initialisation 'imagenet' needs weights.",
                fix="Name a Hugging Face model, for example init_from=microsoft/resnet-50, or a folder with one.",
            )
        config = config.model_copy(update={"vision": init_from, "vision_config": None})
    torch.manual_seed(draw("tower", seed) % _SIGNED)
    tower, resolved = build_vision(config, pretrained=init == "imagenet")
    # What was published decides; positions and poolers that a tower does not use stay as they are.
    config = config.model_copy(update={"vision_config": resolved})
    source = "random weights" if init == "random" else f"weights of {init_from}"
    return Start(tower.eval(), config, weights_hash(tower.state_dict()), source)


def input_fingerprint(init_from: str) -> str:
    """Return what tells weights given by folder or name apart: the hash of the files, or the name."""
    folder = Path(init_from).expanduser()
    if not folder.is_dir():
        return init_from
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors"))
    return hashlib.sha256("".join(f"{file.name} {sha256_file(file)} " for file in files).encode()).hexdigest()


@torch.no_grad()
def centre(tower: ImageEncoder, pixels_N1SS: Tensor) -> None:
    """Shift a fresh projection so that the mean embedding of a sample is zero, as pre-training does at its start."""
    tower.project.bias.sub_(tower(pixels_N1SS).mean(dim=0))


def _of_checkpoint(folder: Path) -> Start:
    loaded = load_checkpoint(folder)
    tower = loaded.model.image
    found, stored = weights_hash(tower.state_dict()), stored_tower_hash(folder)
    if found != stored:
        raise MedfilipError(
            ErrorCode.CHECKPOINT_INVALID,
            f"The image tower that was loaded ({found[:16]}) is not the one in {folder} ({stored[:16]}).",
            fix="Use the version of medfilip that wrote the checkpoint.",
        )
    return Start(tower.eval(), loaded.model.config, found, f"checkpoint {loaded.fingerprint}")


def _config(folder: Path) -> ModelConfig:
    return load_checkpoint(folder).model.config
