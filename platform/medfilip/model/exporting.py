"""A checkpoint as a folder that users of `transformers` load, with this package or without.

::

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json    the whole model
    vision/  text/  heads.safetensors                                        its parts
    README.md  calibration.json  versions.json

The parts are plain `transformers` models (``AutoModel``, ``AutoTokenizer``) and what stands on them, which README.md
spells out in plain torch: nobody needs this package, or to trust it, for a model on known backbones. The whole is for
those who have it: one call instead of 25 lines. Weights are in the folder twice, since neither side's loader reads the
other's names; disks are cheaper than a loader of one's own. The presets' image backbone is unknown to `transformers`,
so there ``import medfilip.model.hugging_face`` comes first, and everything else stays the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import safetensors.torch
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.checkpoint import load_checkpoint, read_files
from medfilip.model.config import ModelConfig
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.hugging_face import MedfilipModel
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.model.residual import ResidualNet
from medfilip.model.residual_hub import ResidualModel
from medfilip.model.tokenizer import Tokenizer
from medfilip.storage.location import Location

_KEPT = ("calibration.json", "versions.json")
_ROLES = {
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def export_model(place: str | Path, folder: Path) -> Path:
    """Write a checkpoint as a folder for `transformers`.

    Parameters
    ----------
    place
        As `medfilip.load` takes it.
    folder
        Is created; must not exist, or be empty.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    MedfilipError
        As `medfilip.load`; ``CONFIG_INVALID`` if the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID, f"The folder {folder} is not empty.", fix="Give one that does not exist."
        )
    checkpoint = local_copy(find_checkpoint(Location.parse(place)))
    files, loaded = read_files(checkpoint), load_checkpoint(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with _quiet():
            write_whole(loaded.model, staging)
            write_parts(loaded.model, staging)
        for name in _KEPT:
            (staging / name).write_bytes(files[name])
        # The card too may name a path of the machine that trained the model.
        (staging / "README.md").write_text(readme(files["README.md"].decode(), loaded.model), encoding="utf-8")
        staging.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def write_whole(model: DualEncoder, folder: Path) -> None:
    """Write what ``AutoModel`` loads after ``import medfilip.model.hugging_face``."""
    MedfilipModel.of(model, public_config(model.config)).save_pretrained(folder)
    transformers_tokenizer(model.tokenizer).save_pretrained(folder)


def write_parts(model: DualEncoder, folder: Path) -> None:
    """Write both backbones as models of their own, and everything else as ``heads.safetensors``."""
    for name, backbone in (("vision", model.image.backbone), ("text", model.text.backbone)):
        whole = ResidualModel.of(backbone) if isinstance(backbone, ResidualNet) else backbone
        assert isinstance(whole, PreTrainedModel)
        whole.save_pretrained(folder / name)
    transformers_tokenizer(model.tokenizer).save_pretrained(folder / "text")
    heads = {name: value.contiguous() for name, value in model.state_dict().items() if ".backbone." not in name}
    safetensors.torch.save_file(heads, folder / "heads.safetensors", metadata={"format": "pt"})


def transformers_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer that gives the same ids and masks; it cuts with ``truncation=True``."""
    backend = tokenizer.copy_of_backend()
    known = {
        role: next((name for name in names if backend.token_to_id(name) is not None), None)
        for role, names in _ROLES.items()
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=tokenizer.pad,
        model_max_length=tokenizer.max_tokens,
        model_input_names=["input_ids", "attention_mask"],
        **{role: name for role, name in known.items() if name is not None},
    )


def public_config(config: ModelConfig) -> ModelConfig:
    """Return a configuration that names local encoders by their folder alone: a path tells about a machine."""
    backbones = {
        name: None if stored is None else {key: value for key, value in stored.items() if key != "_name_or_path"}
        for name, stored in (("vision_config", config.vision_config), ("text_config", config.text_config))
    }
    names = {"vision": _public_name(config.vision), "text": _public_name(config.text)}
    return config.model_copy(update={**names, **backbones})


def _public_name(name: str | None) -> str | None:
    # On the hub a name is 'model' or 'owner/model'; whatever else holds a separator is a path.
    is_path = name is not None and (name.count("/") > 1 or name.startswith(("/", ".", "~")) or Path(name).exists())
    return Path(name).name if name is not None and is_path else name


def readme(card: str, model: DualEncoder) -> str:
    """Return the model's card with the way to load it, the code without this package included."""
    config, image = model.config, model.image
    for name in filter(None, (config.vision, config.text)):
        card = card.replace(name, str(_public_name(name)))
    preset = isinstance(image.backbone, ResidualNet)
    values = {
        "@IMPORT": "import medfilip.model.hugging_face  # registers the image backbone\n" if preset else "",
        "@SIZE": str(config.image_size),
        "@CHANNELS": str(image.channels),
        "@GRID": str(config.grid),
        "@TOKENS": str(config.max_tokens),
        "@OPTIONS": "".join(f", {name}={value}" for name, value in image.options.items()),
        "@NEEDS": (
            "The image backbone is this package's own, so it must be installed; `text/` loads without it."
            if preset
            else "This needs `transformers`, `safetensors` and torch only."
        ),
        "@UNFOLD": _unfolding(model),
    }
    text = resources.files("medfilip.model").joinpath("export_readme.md").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(name, value)
    front = (
        "---\nlibrary_name: transformers\npipeline_tag: zero-shot-image-classification\ntags: [chest-x-ray]\n---\n\n"
    )
    return f"{front}{card.rstrip()}\n\n{text}"


def _unfolding(model: DualEncoder) -> str:
    """Return the lines that make a map of a transformer's tokens; none where the backbone gives a map."""
    pixels_11SS = torch.zeros(1, 1, model.config.image_size, model.config.image_size)
    side = model.image.patches(pixels_11SS)
    if side is None:
        return ""
    return (
        f"    patches = hidden[:, -{side**2}:]  # class and register tokens come first\n"
        f"    hidden = patches.transpose(1, 2).reshape(len(patches), -1, {side}, {side})\n"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars of `transformers`, one a file."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
