"""Converted weights to a folder that ``train.model.vision`` or ``train.model.text`` accepts."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model import residual_hub  # noqa: F401 - registers the presets' backbone

Tower = Literal["vision", "text"]
# Parts that the towers do not use, and counters that carry nothing.
_UNUSED = re.compile(r"(^|\.)(pooler\..*|mask_token|num_batches_tracked|position_ids)$|^layernorm\.(weight|bias)$")
_SHOWN = 5


@dataclass(frozen=True)
class Adoption:
    """What was written.

    Attributes
    ----------
    folder
        For ``train.model.vision`` or ``train.model.text``.
    prefix
        Where the encoder was found among the names of the file.
    adopted
        Number of tensors.
    unexpected
        Names that are no part of the encoder and were left out.
    unused
        Names that were missing, of parts that no tower uses.
    """

    folder: Path
    prefix: str
    adopted: int
    unexpected: tuple[str, ...]
    unused: tuple[str, ...]


def adopt(weights: Path, folder: Path, *, tower: Tower, config: str) -> Adoption:
    """Fit weights to an architecture and write both as a model folder.

    Parameters
    ----------
    weights
        A safetensors file, such as `medfilip.model.converting.convert_weights` writes.
    folder
        Is created; must not exist.
    tower
        A text encoder gets the tokenizer of ``config`` too.
    config
        Name or local path of a Hugging Face model with the architecture of the weights.

    Raises
    ------
    MedfilipError
        ``WEIGHTS_UNFIT`` naming what is missing or has another shape, ``WEIGHTS_UNREADABLE``; ``CONFIG_INVALID`` for
        ``config`` or ``folder``.
    """
    if folder.exists():
        raise MedfilipError(ErrorCode.CONFIG_INVALID, f"The folder {folder} exists.", fix="Give a new one.")
    resolved, shapes = _architecture(config)
    given = {_modern(name): value for name, value in _read(weights).items()}
    prefix = _prefix(given, shapes)
    fitting = {name: given[prefix + name] for name in shapes if prefix + name in given}
    missing = [name for name in shapes if name not in fitting]
    _check(fitting, [name for name in missing if not _UNUSED.search(name)], shapes, config)
    tokenizer = _tokenizer(config) if tower == "text" else None
    resolved.dtype = "float32"
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        float32 = {name: value.float() if value.is_floating_point() else value for name, value in fitting.items()}
        safetensors.torch.save_file(float32, staging / "model.safetensors", metadata={"format": "pt"})
        resolved.save_pretrained(staging)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        staging.chmod(0o755)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    taken = {prefix + name for name in fitting}
    return Adoption(folder, prefix, len(fitting), tuple(sorted(set(given) - taken)), tuple(missing))


def _read(weights: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load_file(weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise MedfilipError(
            ErrorCode.WEIGHTS_UNREADABLE,
            f"The file {weights.name} is missing or no safetensors file.",
            fix="Check the path, and copy it again.",
        ) from error
    return tensors


def _architecture(config: str) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Return the configuration, and the shape of every tensor of the model, without its memory."""
    try:
        resolved = AutoConfig.from_pretrained(config, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(resolved, trust_remote_code=False)
    except (OSError, ValueError, TypeError) as error:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"'{config}' is no Hugging Face model whose architecture can be read without remote code.",
            fix="Give a folder with its config.json, or a name that is in the local cache.",
        ) from error
    resolved.architectures = [type(model).__name__]
    return resolved, {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _tokenizer(config: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"There is no tokenizer in '{config}'.",
            fix="Put the tokenizer.json that belongs to the weights beside its config.json.",
        ) from error


def _modern(name: str) -> str:
    """Return a name as today's models have it: early BERTs called the weights of a norm gamma and beta."""
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))


def _prefix(given: Iterable[str], shapes: Mapping[str, object]) -> str:
    """Find the prefix under which most names of the model are found, such as ``image_encoder.``."""
    found: Counter[str] = Counter()
    for name in given:
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        found.update(name[:start] for start in starts if name[start:] in shapes)
    return max(sorted(found), key=lambda item: found[item], default="")


def _check(
    fitting: Mapping[str, torch.Tensor], missing: list[str], shapes: Mapping[str, tuple[int, ...]], config: str
) -> None:
    other = [
        f"{name} is {list(value.shape)} and not {list(shapes[name])}"
        for name, value in fitting.items()
        if tuple(value.shape) != shapes[name]
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(shapes)} tensors are missing ({_some(missing)})")
    if other:
        problems.append(f"{len(other)} have another shape ({_some(other)})")
    if problems:
        raise MedfilipError(
            ErrorCode.WEIGHTS_UNFIT,
            f"The weights are not those of '{config}': {'; '.join(problems)}.",
            fix="Give with --config the model that they were trained as, and compare names with the converted file.",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
