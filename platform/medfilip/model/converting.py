"""Foreign PyTorch weights to safetensors: offline, without running anything that a file asks for.

A ``.pt`` file is a pickle, and a pickle is a program. It is opened only in a process of its own, by the restricted
unpickler of torch, with a time and a memory limit and an environment without secrets; what it cannot read is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import safetensors
from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings
from medfilip.storage.location import Location

_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
_MAX_REPORT_BYTES = 64 * 2**20


class ConversionLimits(Settings):
    """What reading a foreign file may cost."""

    max_file_bytes: int = Field(default=20 * 2**30, gt=0, description="size of the file")
    timeout_s: float = Field(default=900.0, gt=0, description="seconds for reading and writing")
    memory_factor: float = Field(default=4.0, ge=1, description="memory, as a multiple of the file's size")
    memory_extra_bytes: int = Field(default=1 * 2**30, gt=0, description="memory beside that")


@dataclass(frozen=True)
class Tensor:
    """Name, shape and type of a converted tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes
    ----------
    file
        The safetensors file.
    tensors
        In the order of their names.
    dropped
        What was left out, with the reason.
    """

    file: Path
    tensors: tuple[Tensor, ...]
    dropped: dict[str, str]


def convert_weights(
    file: str | Path, out: Path, *, key: str | None = None, limits: ConversionLimits | None = None
) -> Conversion:
    """Convert a file of ``torch.save`` to safetensors.

    Parameters
    ----------
    file
        Local ``.pt``, ``.pth``, ``.ckpt`` or ``.bin`` file with a state dictionary, also below ``state_dict`` or
        ``model``; never a URL.
    out
        The ``.safetensors`` file to write; must not exist.
    key
        Where the state dictionary lies in the file, such as ``ema.model``, if it is in no usual place.

    Raises
    ------
    MedfilipError
        ``WEIGHTS_UNSAFE`` if the file asks for code, ``WEIGHTS_UNREADABLE`` if it is broken, takes too long or claims
        too much, ``INPUT_NOT_FOUND``, ``URI_NOT_ALLOWED``, ``CONFIG_INVALID`` for ``out`` or ``key``.
    """
    limits = limits or ConversionLimits()
    source = _source(file, limits)
    if out.suffix != ".safetensors" or out.exists():
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The output '{out}' must be a new file that ends in .safetensors.",
            fix="Give another name, such as weights.safetensors.",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        report = _run(source, staging, key, limits)
        _raise_for(report, source, key)
        tensors = listed(staging / "weights.safetensors")
        (staging / "weights.safetensors").replace(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    dropped = report.get("dropped")
    return Conversion(out, tensors, dict(dropped) if isinstance(dropped, dict) else {})


def listed(file: Path) -> tuple[Tensor, ...]:
    """List the tensors of a safetensors file, from its header."""
    with safetensors.safe_open(file, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in sorted(opened.keys())}
        return tuple(Tensor(name, tuple(item.get_shape()), item.get_dtype()) for name, item in slices.items())


def _source(file: str | Path, limits: ConversionLimits) -> Path:
    place = Location.parse(file)
    if place.scheme != "file":
        raise MedfilipError(
            ErrorCode.URI_NOT_ALLOWED,
            "Foreign weights are read from a local file only.",
            fix="Copy the file to this machine and check where it is from.",
        )
    path = Path(place.path)
    if not path.is_file():
        raise MedfilipError(ErrorCode.INPUT_NOT_FOUND, f"There is no file {path}.", fix="Check the path.")
    if path.stat().st_size > limits.max_file_bytes:
        raise MedfilipError(
            ErrorCode.WEIGHTS_UNREADABLE,
            f"The file has {path.stat().st_size} bytes; max_file_bytes is {limits.max_file_bytes}.",
            fix="Give the weights alone, without the optimizer's state.",
        )
    return path


def _run(source: Path, staging: Path, key: str | None, limits: ConversionLimits) -> dict[str, object]:
    """Run the worker and return its report; that it died or was killed is a report too."""
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = "1"
    memory_bytes = int(limits.memory_factor * source.stat().st_size) + limits.memory_extra_bytes
    command = [sys.executable, "-m", "medfilip.model._weights_worker"]
    command += [str(source), str(staging), str(memory_bytes), key or ""]
    try:
        subprocess.run(  # noqa: S603 - a fixed command line
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=limits.timeout_s,
            check=False,
        )
        file = staging / "report.json"
        if file.stat().st_size > _MAX_REPORT_BYTES:
            return {"kind": "unreadable", "reason": "it has too many names"}
        report = json.loads(file.read_bytes())
    except subprocess.TimeoutExpired:
        return {"kind": "unreadable", "reason": f"reading it took longer than timeout_s = {limits.timeout_s:g} s"}
    except (OSError, ValueError):
        return {"kind": "unreadable", "reason": "the process that reads it died"}
    return report if isinstance(report, dict) else {"kind": "unreadable", "reason": "the report is broken"}


def _raise_for(report: dict[str, object], source: Path, key: str | None) -> None:
    kind, reason = report.get("kind"), report.get("reason")
    if kind == "converted":
        return
    if kind == "unsafe":
        raise MedfilipError(
            ErrorCode.WEIGHTS_UNSAFE,
            f"The file {source.name} was not loaded: {reason}, and loading that would run code of its author.",
            fix="Ask its author for safetensors, or, where you trust the file, load it in a container without network "
            "and secrets, torch.save(model.state_dict(), …) there, and convert that.",
        )
    if kind == "no_key":
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"There is nothing at '{key}' in {source.name}.",
            fix="Convert without --key; the report lists what lies beside the weights.",
        )
    raise MedfilipError(
        ErrorCode.WEIGHTS_UNREADABLE,
        f"The file {source.name} cannot be converted: {reason}.",
        fix="Copy it again and compare its hash; --key says where the weights lie in it.",
    )
