"""The model that a student is made from: a folder, the extractor that ships, or a name on the Hugging Face Hub."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_file
from medfilip.distillation.shipped import SHIPPED_NAME, shipped_student

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FILES = (".json", ".safetensors", ".jinja", ".model")
"""Files that decide what a model is; nothing else is downloaded, and no code."""


@lru_cache(maxsize=8)
def base_folder(base: str) -> Path:
    """Return the local folder of a base; a name on the Hub is downloaded, or found where it was before.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` for a folder without a model, and for a name that cannot be had.
    """
    if base == SHIPPED_NAME:
        return shipped_student()
    folder = Path(base)
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() or not _HUB_NAME.fullmatch(base):
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"The setting 'base' names {base}, which holds no config.json.",
            fix=f"Give the folder of a Hugging Face model (on a cluster one that all nodes share), a name on the Hub, "
            f"or {SHIPPED_NAME}.",
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(base, allow_patterns=[f"*{suffix}" for suffix in _FILES]))
    except (OSError, ValueError) as error:
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"The setting 'base' names {base}, which is no folder here and cannot be had from the Hub: "
            f"{type(error).__name__}.",
            fix="Check the name and the network, or give the folder of a copy.",
        ) from error


def base_fingerprint(base: str) -> str:
    """Return the fingerprint of the files of a base."""
    files = (file for file in sorted(base_folder(base).iterdir()) if file.suffix in _FILES)
    return fingerprint([[file.name, sha256_file(file)] for file in files])
