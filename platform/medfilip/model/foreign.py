"""Weights in what other people save: finding the tensors among epochs, optimizers and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
_MAX_DEPTH = 8
MAX_TENSORS = 100_000
MAX_NAME = 300


@dataclass
class Found:
    """Tensors by name, and what was left out and why."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def drop(self, name: str, reason: str) -> None:
        """Note what is left out; the names of a hostile file shall not fill the memory."""
        if len(self.dropped) < MAX_TENSORS:
            self.dropped[name[:MAX_NAME]] = reason


def find_tensors(loaded: object, key: str | None = None) -> Found:
    """Find the weights in a loaded file.

    Parameters
    ----------
    loaded
        What ``torch.load`` returned: a state dictionary, or one below ``state_dict``, ``model``, …
    key
        Where it lies, such as ``ema.model``; without it the usual places are tried.

    Returns
    -------
    Found
        Names without ``module.`` and ``_orig_mod.`` where all have it; dictionaries in it become dotted names.

    Raises
    ------
    KeyError
        If ``key`` is not there.
    """
    found = Found()
    if key is not None:
        for part in key.split("."):
            if not isinstance(loaded, Mapping) or part not in loaded:
                raise KeyError(key)
            loaded = loaded[part]
    else:
        loaded = _unwrapped(loaded, found)
    _collect(loaded, "", found, 0)
    while prefix := next((item for item in _PREFIXES if found.tensors and _all_have(found, item)), None):
        found.tensors = {name.removeprefix(prefix): value for name, value in found.tensors.items()}
    return found


def _unwrapped(loaded: object, found: Found) -> object:
    for _ in range(_MAX_DEPTH):
        if not isinstance(loaded, Mapping):
            break
        inside = next((name for name in _WRAPPERS if isinstance(loaded.get(name), Mapping) and loaded[name]), None)
        if inside is None:
            break
        for name in loaded:
            if name != inside:
                found.drop(str(name), f"lies beside '{inside}'")
        loaded = loaded[inside]
    return loaded


def _collect(value: Any, name: str, found: Found, depth: int) -> None:
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        for part, inner in value.items():
            _collect(inner, f"{name}.{part}" if name else str(part), found, depth + 1)
    elif not isinstance(value, Tensor):
        found.drop(name, f"is no tensor ({type(value).__name__})")
    elif reason := _unfit(value, name, found):
        found.drop(name, reason)
    else:
        found.tensors[name] = value.detach()


def _unfit(value: Tensor, name: str, found: Found) -> str | None:
    if len(found.tensors) >= MAX_TENSORS or not 0 < len(name) <= MAX_NAME:
        return f"there are more than {MAX_TENSORS} tensors, or its name has more than {MAX_NAME} characters"
    if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
        return "is sparse, quantized, complex or without values"
    return None


def _all_have(found: Found, prefix: str) -> bool:
    return all(name.startswith(prefix) and len(name) > len(prefix) for name in found.tensors)
