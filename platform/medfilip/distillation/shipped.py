"""The student that comes with the package: trained on synthetic sentences alone, pinned by the hashes in its folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from medfilip.model.checkpoint import read_files

SHIPPED = Path(__file__).parent / "data" / "mini"
"""Its folder; ``medfilip make-extractor-mini`` makes it again."""

_REQUIRED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def shipped_student() -> Path:
    """Return the folder of the student that comes with the package, verified.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID`` if a file of it is missing or changed.
    """
    verify_student(SHIPPED)
    return SHIPPED


@lru_cache(maxsize=4)
def verify_student(folder: Path) -> None:
    """Check every file of a student against ``hashes.json``, once for each process.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID`` if a file is missing or changed, or there are no hashes.
    """
    read_files(folder, _REQUIRED)
