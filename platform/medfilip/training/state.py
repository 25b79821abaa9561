"""The state of a run that may be resumed: optimizer moments as tensors, the rest as JSON, no pickle.

The learning rate, the order and every random draw are functions of the step, so the step is all there is to remember
beside the moments and, where an average of the weights is published, the weights themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.model.checkpoint import WEIGHTS, read_files
from medfilip.model.dual_encoder import DualEncoder
from medfilip.training.average import Average
from medfilip.training.settings import TrainSettings
from medfilip.training.sharding import like, load_whole, whole

OPTIMIZER, PROGRESS, RAW_WEIGHTS = "optimizer.safetensors", "progress.json", "weights.safetensors"
_SLOTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """How far a run is, and which run it is."""

    step: int
    run: str


def run_name(settings: TrainSettings, data: Mapping[str, object]) -> str:
    """Name a run by its settings and data: another run's state must not be resumed."""
    return fingerprint({"settings": settings.semantic(), "data": dict(data)})


def state_files(
    model: DualEncoder, optimizer: torch.optim.Optimizer, average: Average | None, progress: Progress
) -> dict[str, bytes]:
    """Return the files that `resume` reads, for `save_checkpoint(extra=…)`; with sharded weights a collective."""
    files = {
        OPTIMIZER: safetensors.torch.save(moments_of(model, optimizer)),
        PROGRESS: json.dumps({"step": progress.step, "run": progress.run}).encode(),
    }
    if average is not None:
        files[RAW_WEIGHTS] = safetensors.torch.save(weights_of(model))
    return files


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments of all parameters by name, as whole tensors; with sharded weights a collective."""
    return {
        f"{slot}.{name}": whole(value)
        for name, parameter in model.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(model: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    """Give an optimizer the moments that `moments_of` returned."""
    for name, parameter in model.named_parameters():
        found = {slot: moments[f"{slot}.{name}"] for slot in _SLOTS if f"{slot}.{name}" in moments}
        if found:
            # The counter of steps lies where the optimizer would have put it: with the weights only if it is fused.
            fused = bool(optimizer.defaults.get("fused"))
            optimizer.state[parameter] = {
                slot: (value.to(parameter.device) if fused else value) if slot == "step" else like(value, parameter)
                for slot, value in found.items()
            }


def weights_of(model: DualEncoder, average: Average | None = None) -> dict[str, Tensor]:
    """Return all weights as whole tensors, the averaged ones where there are; with sharded weights a collective."""
    averaged = average.values if average is not None else {}
    return {name: whole(averaged.get(name, value)) for name, value in model.state_dict().items()}


def resume(
    folder: Path, model: DualEncoder, optimizer: torch.optim.Optimizer, average: Average | None, run: str
) -> int:
    """Restore weights, average and moments in place and return the number of steps that are done.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID`` if a file is missing or changed; ``CONFIG_INVALID`` if it belongs to another run.
    """
    files = read_files(folder)
    wanted = [OPTIMIZER, PROGRESS, *([RAW_WEIGHTS] if average is not None else [])]
    if missing := [name for name in wanted if name not in files]:
        raise MedfilipError(
            ErrorCode.CHECKPOINT_INVALID,
            f"The checkpoint {folder} has no {' and no '.join(missing)}: training cannot go on from it.",
            fix="Resume from a checkpoint that the training run reported.",
        )
    progress = Progress(**json.loads(files[PROGRESS]))
    if progress.run != run:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The checkpoint {folder} belongs to a run with other settings or data.",
            fix="Use the settings it was started with, or start a new run with --new-run.",
        )
    published = safetensors.torch.load(files[WEIGHTS])
    if average is not None:
        average.values = {name: like(published[name], value) for name, value in average.values.items()}
    load_whole(model, safetensors.torch.load(files[RAW_WEIGHTS]) if average is not None else published)
    restore_moments(model, optimizer, safetensors.torch.load(files[OPTIMIZER]))
    return progress.step
