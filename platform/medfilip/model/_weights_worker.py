"""The process in which a foreign weights file is opened, so that a hostile one can only kill itself.

``python -m medfilip.model._weights_worker FILE FOLDER MEMORY KEY`` writes ``weights.safetensors`` and ``report.json``
into the folder. The file is read by torch's restricted unpickler (``weights_only=True``), which knows tensors and
plain containers and calls nothing that a file names.
"""

from __future__ import annotations

import json
import pickle  # for the name of an error; nothing is unpickled with it
import re
import sys
import warnings
import zipfile
from pathlib import Path

import safetensors.torch
import torch

from medfilip.imaging._decode_worker import limit_memory
from medfilip.model.foreign import Found, find_tensors

_NAME = re.compile(r"[A-Za-z_][\w.]{0,80}")
_BEYOND = re.compile(r"unsupported|allowed|blocked", re.IGNORECASE)  # what torch's restricted unpickler says of code
_NO_MEMORY = re.compile(r"allocat|memory|mmap", re.IGNORECASE)  # torch's allocator raises RuntimeError, not MemoryError
_SLACK_BYTES = 64 * 2**20


def convert(file: Path, folder: Path, key: str | None) -> dict[str, object]:
    """Read ``file`` and write its tensors; return the report, or a failure with ``kind`` and ``reason``."""
    if programs := _programs(file):
        return {"kind": "unsafe", "reason": programs}
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader raises on a broken file is one answer
        return _failure(error)
    try:
        found = find_tensors(loaded, key)
    except KeyError:
        return {"kind": "no_key"}
    return _written(found, file.stat().st_size, folder)


def _failure(error: Exception) -> dict[str, object]:
    if isinstance(error, pickle.UnpicklingError) and _BEYOND.search(str(error)):
        named = re.search(rf"global ({_NAME.pattern})", str(error), re.IGNORECASE)
        wanted = named.group(1) if named else "more than tensors and plain containers"
        return {"kind": "unsafe", "reason": f"it asks for {wanted}"}
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return {"kind": "unreadable", "reason": "it needs more memory than its size allows for"}
    return {"kind": "unreadable", "reason": f"it is incomplete, or no PyTorch file ({type(error).__name__})"}


def _written(found: Found, file_bytes: int, folder: Path) -> dict[str, object]:
    if not found.tensors:
        return {"kind": "empty", "reason": "there are no tensors in it"}
    # A tensor may claim to be far larger than what is stored: by strides of zero, or by sharing.
    total = sum(value.numel() * value.element_size() for value in found.tensors.values())
    if total > 4 * file_bytes + _SLACK_BYTES:
        return {"kind": "unreadable", "reason": "its tensors claim to be far larger than the file"}
    own = {name: value.clone(memory_format=torch.contiguous_format) for name, value in found.tensors.items()}
    safetensors.torch.save_file(own, folder / "weights.safetensors", metadata={"format": "pt"})
    return {"kind": "converted", "dropped": found.dropped}


def _programs(file: Path) -> str | None:
    """Say which names a file wants called, or that it is a program; nothing of it is run for that."""
    if not zipfile.is_zipfile(file):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            if any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist()):
                return "it is a TorchScript program"
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # a broken archive is for torch.load to judge
        return None
    named = [name for name in wanted if _NAME.fullmatch(name)][:3]
    return f"it asks for {', '.join(named) or 'unnamed code'}" if wanted else None


def main() -> None:
    """Convert one file within the memory that was given."""
    file, folder, memory_bytes, key = sys.argv[1:5]
    warnings.simplefilter("ignore")
    limit_memory(int(memory_bytes))
    try:
        report = convert(Path(file), Path(folder), key or None)
    except (MemoryError, RuntimeError) as error:
        report = _failure(error)
    (Path(folder) / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
