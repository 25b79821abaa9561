"""Finds the checkpoint a user means, and brings it to this machine."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.checkpoint import HASHES
from medfilip.storage.location import Location

CHECKPOINT = "checkpoint"


def find_checkpoint(given: Location) -> Location:
    """Return the checkpoint folder for a checkpoint folder or the run of a pretrain job."""
    for candidate in (given, given / CHECKPOINT):
        if (candidate / HASHES).exists():
            return candidate
    raise MedfilipError(
        ErrorCode.INPUT_NOT_FOUND,
        f"There is no checkpoint at {given}.",
        fix="Give the run of a finished pretrain job, or a folder with config.json, model.safetensors and hashes.json.",
    )


@lru_cache(maxsize=2)
def local_checkpoint(checkpoint: Location) -> Path:
    """Return a local folder with the checkpoint, downloaded once for each process if it is not local."""
    if checkpoint.scheme == "file":
        return Path(checkpoint.path)
    folder = Path(tempfile.mkdtemp(prefix="medfilip-checkpoint-"))
    for file in checkpoint.children():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
