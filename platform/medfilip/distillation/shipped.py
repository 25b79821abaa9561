"""Students are pinned by the hashes in their folder; one, of synthetic sentences alone, comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_file
from medfilip.model.checkpoint import HASHES, verify_files

SHIPPED_NAME = "medfilip-extractor-mini"
SHIPPED = Path(__file__).parent / "data" / "mini"
"""Its folder; ``medfilip make-extractor-mini`` makes it again."""

_REQUIRED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_LOADED = (".json", ".safetensors", ".bin", ".jinja", ".model", ".py")
"""What engines and transformers pick up from a folder unasked, an adapter for example."""


def shipped_student() -> Path:
    """Return the folder of the student that comes with the package, verified.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID`` if a file of it is missing or changed.
    """
    verify_student(SHIPPED, _REQUIRED)
    return SHIPPED


def verify_student(folder: Path, required: Sequence[str] = ("config.json",)) -> dict[str, str]:
    """Check every file of a student against ``hashes.json``, once for each process, and return the hashes.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID`` if a file is missing, changed or not listed, or there are no hashes.
    """
    listed = verify_files(folder, required)
    for file in sorted(folder.iterdir()):
        if file.suffix in _LOADED and file.name not in listed and file.name != HASHES:
            raise MedfilipError(
                ErrorCode.CHECKPOINT_INVALID,
                f"The file {file.name} of {folder} is not listed in {HASHES}.",
                fix="Remove it, or restore the folder from a copy.",
            )
    return listed


def weight_hashes(folder: Path, required: Sequence[str] = ("config.json",)) -> list[list[str]]:
    """Return names and hashes of the weights in a model folder; one that lists hashes is verified by them.

    Raises
    ------
    MedfilipError
        As `verify_student` does.
    """
    known = verify_student(folder, required) if (folder / HASHES).is_file() else {}
    return [[file.name, known.get(file.name) or sha256_file(file)] for file in sorted(folder.glob("*.safetensors"))]
