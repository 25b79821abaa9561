"""A trained model as a folder that anyone can read: no pickle, no remote code, every file covered by a hash.

::

    config.json  model.safetensors  tokenizer.json  versions.json  calibration.json  metrics.json  README.md
    slots.json   (if the model was trained here: what its reports told of findings beside their category)
    familiarity.safetensors   (if there were enough validation images: what the model knows images to look like)
    hashes.json   (written last: a folder without it is unfinished)

Files beside these, such as the optimizer's state of a run that may be resumed, are covered by the hashes too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import safetensors
import safetensors.torch
from pydantic import TypeAdapter
from torch import Tensor

from medfilip._version import __version__
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_bytes, sha256_file
from medfilip.knowledge.inject import InjectionMode
from medfilip.knowledge.slots import Slot
from medfilip.model.calibration import Calibration
from medfilip.model.config import ModelConfig
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.familiarity import FILE as FAMILIARITY
from medfilip.model.familiarity import Familiarity
from medfilip.model.tokenizer import Tokenizer

HASHES, WEIGHTS = "hashes.json", "model.safetensors"
SLOTS = "slots.json"
REQUIRED = ("config.json", WEIGHTS, "tokenizer.json", "versions.json", "calibration.json", "metrics.json")
SlotCounts: TypeAlias = dict[str, dict[Slot, dict[str, int]]]
"""Category → slot → value → how many findings of the training reports told it."""
_T = TypeVar("_T")
_SLOT_COUNTS: TypeAdapter[SlotCounts] = TypeAdapter(SlotCounts)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Versions:
    """What a model's numbers depend on beside its weights.

    Attributes
    ----------
    injection
        How attributes were written into the training texts, and are into prompts.
    unseen
        Categories that were kept out of training, to be diagnosed by their attributes alone.
    """

    ontology: str
    knowledge: str
    synthetic: bool
    injection: InjectionMode = "conditioned"
    unseen: tuple[str, ...] = ()
    medfilip: str = __version__

    def __post_init__(self) -> None:
        object.__setattr__(self, "unseen", tuple(self.unseen))  # JSON has lists


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

    model: DualEncoder
    versions: Versions
    calibration: Calibration
    metrics: dict[str, Any]
    fingerprint: str
    familiarity: Familiarity | None = None
    slots: SlotCounts = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    model: DualEncoder,
    versions: Versions,
    *,
    calibration: Calibration | None = None,
    familiarity: Familiarity | None = None,
    slots: SlotCounts | None = None,
    metrics: Mapping[str, Any] | None = None,
    extra: Mapping[str, bytes] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> str:
    """Write a checkpoint and return the model's fingerprint.

    Parameters
    ----------
    folder
        Is created; files of an earlier checkpoint in it are overwritten.
    extra
        Further files by plain name.
    weights
        Instead of the model's own: an average, or whole tensors of a model that is divided among processes.
    """
    config = model.config.model_dump(mode="json")
    chosen = model.state_dict() if weights is None else weights
    packed = safetensors.torch.save({name: value.contiguous() for name, value in chosen.items()})
    name = fingerprint({"config": config, "weights": sha256_bytes(packed)})
    calibration = calibration or Calibration()
    content = {
        "config.json": _json(config),
        WEIGHTS: packed,
        "tokenizer.json": model.tokenizer.to_json().encode(),
        "versions.json": _json(versions.__dict__),
        "calibration.json": _json(calibration.model_dump(mode="json")),
        "metrics.json": _json(dict(metrics or {})),
        "README.md": _card(name, model.config, versions, calibration, metrics or {}).encode(),
        **({SLOTS: _json(slots)} if slots else {}),
        **({FAMILIARITY: familiarity.to_bytes()} if familiarity else {}),
        **(extra or {}),
    }
    write_files(folder, content)
    return name


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> str:
    """Write a checkpoint that was loaded, without files that only training needs; return its fingerprint.

    ``dataclasses.replace`` gives one with another calibration or other metrics.
    """
    return save_checkpoint(
        folder, checkpoint.model, checkpoint.versions, calibration=checkpoint.calibration,
        familiarity=checkpoint.familiarity, slots=checkpoint.slots, metrics=checkpoint.metrics,
    )  # fmt: skip


def write_files(folder: Path, content: Mapping[str, bytes]) -> None:
    """Write files by plain name and, last, the hashes that make them a finished checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HASHES).unlink(missing_ok=True)
    for file, data in content.items():
        (folder / _checked_name(file)).write_bytes(data)
    (folder / HASHES).write_bytes(_json({file: sha256_bytes(data) for file, data in sorted(content.items())}))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, in eval mode and on the CPU, after every hash has been verified.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID``, naming the file that is missing, changed or unreadable.
    """
    files = read_files(folder)
    config = _parse(folder, "config.json", lambda: ModelConfig.model_validate_json(files["config.json"]))
    tokenizer = _parse(
        folder, "tokenizer.json", lambda: Tokenizer.from_json(files["tokenizer.json"].decode(), config.max_tokens)
    )
    versions = _parse(folder, "versions.json", lambda: Versions(**json.loads(files["versions.json"])))
    calibration = _parse(folder, "calibration.json", lambda: Calibration.model_validate_json(files["calibration.json"]))
    metrics = _parse(folder, "metrics.json", lambda: dict(json.loads(files["metrics.json"])))
    model = _parse(folder, "config.json", lambda: DualEncoder(config, tokenizer, pretrained=False))
    weights = _parse(folder, WEIGHTS, lambda: safetensors.torch.load(files[WEIGHTS]))
    _parse(folder, WEIGHTS, lambda: model.load_state_dict(weights))
    name = fingerprint({"config": config.model_dump(mode="json"), "weights": sha256_bytes(files[WEIGHTS])})
    reference = files.get(FAMILIARITY)
    familiarity = _parse(folder, FAMILIARITY, lambda: Familiarity.from_bytes(reference)) if reference else None
    told = files.get(SLOTS)
    slots = _parse(folder, SLOTS, lambda: _SLOT_COUNTS.validate_json(told)) if told else {}
    return Checkpoint(model.eval(), versions, calibration, metrics, name, familiarity, slots)


def read_files(folder: Path, required: Sequence[str] = REQUIRED) -> dict[str, bytes]:
    """Read every file that ``hashes.json`` lists, verified; nothing outside the folder is ever opened.

    Raises
    ------
    MedfilipError
        ``CHECKPOINT_INVALID`` if a file is missing or changed, one of ``required`` among them.
    """
    listed = _listed(folder, required)
    files: dict[str, bytes] = {}
    for file, expected in listed.items():
        files[file] = (folder / file).read_bytes()
        if sha256_bytes(files[file]) != expected:
            raise _invalid(folder, file, "does not match its hash")
    return files


def verify_files(folder: Path, required: Sequence[str] = REQUIRED) -> dict[str, str]:
    """Check every file that ``hashes.json`` lists, without holding any in memory, and return the hashes.

    A file is hashed once in a process; again only if its time or size has changed.

    Raises
    ------
    MedfilipError
        As `read_files` does.
    """
    listed = _listed(folder, required)
    for file, expected in listed.items():
        path = (folder / file).absolute()
        about = path.stat()
        if _hash_of(path, about.st_mtime_ns, about.st_size, about.st_ino) != expected:
            raise _invalid(folder, file, "does not match its hash")
    return listed


@lru_cache(maxsize=256)
def _hash_of(path: Path, time: int, size: int, inode: int) -> str:
    return sha256_file(path)


def _listed(folder: Path, required: Sequence[str]) -> dict[str, str]:
    """Return the hashes of ``hashes.json``; its files are there, plain, and the required among them."""
    listed: dict[str, str] = _parse(folder, HASHES, lambda: dict(json.loads((folder / HASHES).read_bytes())))
    for file in listed:
        if not _PLAIN_NAME.fullmatch(file):
            raise _invalid(folder, HASHES, "lists a name that is no plain file name")
        path = folder / file
        if path.is_symlink() or not path.is_file():
            raise _invalid(folder, file, "is missing or is a link")
    for file in required:
        if file not in listed:
            raise _invalid(folder, file, "is not listed in hashes.json")
    return listed


def _parse(folder: Path, file: str, read: Callable[[], _T]) -> _T:
    """Run a reader of one file; whatever is wrong with the file becomes one error that names it."""
    try:
        return read()
    except MedfilipError as error:
        raise _invalid(folder, file, f"cannot be used: {error.message}") from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise _invalid(folder, file, "is missing or unreadable") from error
    except Exception as error:  # the tokenizers library raises plain Exception on malformed JSON
        if type(error) is not Exception:
            raise
        raise _invalid(folder, file, "is unreadable") from error


def _checked_name(name: str) -> str:
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"'{name[:40]}' is no plain file name")
    return name


def _invalid(folder: Path, file: str, problem: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.CHECKPOINT_INVALID,
        f"In the checkpoint {folder} the file {file} {problem}.",
        fix="Copy the whole folder again from where it was trained, or use another checkpoint.",
    )


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _card(
    name: str, config: ModelConfig, versions: Versions, calibration: Calibration, metrics: Mapping[str, Any]
) -> str:
    data = (
        "**synthetic training data**: shows that the platform works; worthless for patients"
        if versions.synthetic
        else "a licensed corpus; see the manifest of the training run"
    )
    curves = ", ".join(sorted(calibration.categories)) or "none"
    numbers = "\n".join(f"| {key} | {value:.4g} |" for key, value in metrics.items() if isinstance(value, int | float))
    return f"""# Zero-shot chest X-ray model {name}

Research use only. Not a medical device.

| | |
|---|---|
| training data | {data} |
| vision | {config.vision or config.preset} at {config.image_size} px |
| text | {config.text or config.preset}, {config.max_tokens} tokens |
| ontology | {versions.ontology} |
| knowledge | {versions.knowledge}, attributes {versions.injection} |
| medfilip | {versions.medfilip} |
| calibrated categories | {curves} |

Give frontal images through the same preprocessing as in training; ask with ontology ids or short texts. The model
knows what its training reports spoke about; for other labels it relies on their visual attributes.

| metric | value |
|---|---|
{numbers}
"""
