"""The state of a run that may be resumed: optimizer moments as tensors, the rest as JSON, no pickle.

The learning rate, the order and every random draw are functions of the step, so the step is all there is to remember
beside the moments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.model.checkpoint import load_checkpoint, read_files
from medfilip.model.dual_encoder import DualEncoder
from medfilip.training.settings import TrainSettings

OPTIMIZER, PROGRESS = "optimizer.safetensors", "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a run is, and which run it is."""

    step: int
    run: str


def run_name(settings: TrainSettings, data: Mapping[str, object]) -> str:
    """Name a run by its settings and data: another run's state must not be resumed."""
    return fingerprint({"settings": settings.semantic(), "data": dict(data)})


def state_files(model: DualEncoder, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, bytes]:
    """Return the files that `resume` reads, for `save_checkpoint(extra=…)`."""
    moments: dict[str, Tensor] = {
        f"{slot}.{name}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }
    return {
        OPTIMIZER: safetensors.torch.save(moments),
        PROGRESS: json.dumps({"step": progress.step, "run": progress.run}).encode(),
    }


def resume(folder: Path, model: DualEncoder, optimizer: torch.optim.Optimizer, run: str) -> int:
    """Restore weights and moments in place and return the number of steps that are done.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID`` if a file is missing or changed; ``CONFIG_INVALID`` if it belongs to another run.
    """
    files = read_files(folder)
    if OPTIMIZER not in files or PROGRESS not in files:
        raise MedfilipError(
            ErrorCode.CHECKPOINT_INVALID,
            f"The checkpoint {folder} has no {OPTIMIZER} or {PROGRESS}: training cannot go on from it.",
            fix="Resume from a checkpoint that the training run reported.",
        )
    progress = Progress(**json.loads(files[PROGRESS]))
    if progress.run != run:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The checkpoint {folder} belongs to a run with other settings or data.",
            fix="Use the settings it was started with, or start a new run with --new-run.",
        )
    model.load_state_dict(load_checkpoint(folder).model.state_dict())
    moments = safetensors.torch.load(files[OPTIMIZER])
    for name, parameter in model.named_parameters():
        found = {
            slot: moments[f"{slot}.{name}"] for slot in ("step", "exp_avg", "exp_avg_sq") if f"{slot}.{name}" in moments
        }
        if found:
            # AdamW keeps its step counter on the CPU whatever the parameter's device.
            optimizer.state[parameter] = {
                slot: value if slot == "step" else value.to(parameter.device) for slot, value in found.items()
            }
    return progress.step
