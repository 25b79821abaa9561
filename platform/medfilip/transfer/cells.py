"""The grid of a transfer measurement: mode x initialisation x share of labels x seed, cell by cell.

Legend of tensor names: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_bytes
from medfilip.core.settings import Settings
from medfilip.model.config import ModelConfig
from medfilip.model.distributed import World
from medfilip.training.images import ImageSource
from medfilip.training.reporter import Reporter
from medfilip.transfer.classifier import Classifier
from medfilip.transfer.dice import Cut, choose_cut
from medfilip.transfer.fit import Plan, fit, predict
from medfilip.transfer.fractions import draw_fraction
from medfilip.transfer.labelled import Labelled
from medfilip.transfer.masks import Mask
from medfilip.transfer.problems import Classification, Ints, Predicted, Problem, Segmentation
from medfilip.transfer.segmenter import Segmenter
from medfilip.transfer.settings import Init, Mode, TuneSettings
from medfilip.transfer.towers import Start, centre, start

_CENTRING_IMAGES = 64


class Cell(Settings):
    """One cell of the grid."""

    mode: Mode
    init: Init
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        """Names the cell in files."""
        return f"{self.mode}-{self.init}-{self.fraction:g}-{self.seed}"


def grid(modes: Sequence[Mode], inits: Sequence[Init], fractions: Sequence[float], seeds: Sequence[int]) -> list[Cell]:
    """Return all cells, in the order in which they are computed and shown."""
    return [
        Cell(mode=mode, init=init, fraction=fraction, seed=seed)
        for mode, init, fraction, seed in product(modes, inits, fractions, seeds)
    ]


@dataclass(frozen=True)
class Material:
    """What the cells of one mode are trained on.

    Attributes
    ----------
    checkpoint
        Local folder.
    init_from
        Hugging Face vision model of the initialisation ``imagenet``.
    mask
        For segmentation: position of an image → bool [S, S].
    """

    checkpoint: Path
    init_from: str | None
    labelled: Labelled
    images: ImageSource
    tune: TuneSettings
    mask: Callable[[int], Mask] | None = None


@dataclass(frozen=True)
class Tuned:
    """A finished cell.

    Attributes
    ----------
    record
        What is told of it, as JSON data.
    scores
        Of the test images: logits, or counts of pixels.
    model, config
        The module with its best weights, and what its tower is built from.
    """

    record: dict[str, Any]
    scores: Predicted
    model: nn.Module
    config: ModelConfig


def share(cell: Cell, labelled: Labelled) -> Ints:
    """Return the positions of the training images of a cell."""
    train = labelled.rows("train")
    chosen = draw_fraction(labelled.patients_of(train), labelled.truth_NL[train], cell.fraction, cell.seed)
    return train[chosen]


def check_splits(labelled: Labelled) -> None:
    """Refuse a table without images to train on, to choose by, or to score.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA``, naming the split.
    """
    for split in ("train", "validation", "test"):
        if not len(labelled.rows(split)):
            raise MedfilipError(
                ErrorCode.NOT_ENOUGH_DATA,
                f"The split '{split}' has no image of which a label is known.",
                fix="Ingest with larger shares split.validation and split.test, or give other labels.",
            )


def describe(cell: Cell, labelled: Labelled, found: Start) -> dict[str, Any]:
    """Return what is told of any cell: where it began and how much it saw."""
    train = share(cell, labelled)
    return {
        **cell.model_dump(mode="json"),
        "weights": found.weights,
        "source": found.source,
        "images": len(train),
        "patients": len(set(labelled.patients_of(train))),
    }


def tune(cell: Cell, material: Material, world: World, reporter: Reporter, workdir: Path) -> Tuned:
    """Train a cell of full fine-tuning or segmentation and score the test split once, with the best step's weights."""
    labelled, settings = material.labelled, material.tune
    found = start(cell.init, material.checkpoint, cell.seed, material.init_from)
    train, validation, test = share(cell, labelled), labelled.rows("validation"), labelled.rows("test")
    problem = _problem(cell, material, found, train)
    plan = Plan(_name(cell, material, found, train), train, validation, cell.seed, pretrained=cell.init != "random")
    best = fit(problem, plan, settings, world, reporter, workdir)
    record = describe(cell, labelled, found) | {
        "steps": settings.steps,
        "best_step": best.step,
        "validation": best.quality,
    }
    if cell.mode == "segment":
        cut, _ = choose_cut(predict(problem, validation, world))
        record["cut"] = {"threshold": cut.threshold, "area": cut.area}
    return Tuned(record, predict(problem, test, world), problem.module, found.config)


def cut_of(record: dict[str, Any]) -> Cut:
    """Return what makes a mask of a segmentation's probabilities."""
    return Cut(float(record["cut"]["threshold"]), float(record["cut"]["area"]))


def _problem(cell: Cell, material: Material, found: Start, train: Ints) -> Problem:
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    labelled, settings = material.labelled, material.tune
    bf16 = settings.precision == "bf16"
    torch.manual_seed(cell.seed)  # the decoder begins alike below every tower of a shape
    if cell.mode == "segment":
        assert material.mask is not None
        decoder = Segmenter(found.tower, found.config.image_size, settings.width).to(device)
        return Segmentation(decoder, material.images, labelled, material.mask, settings.augment, cell.seed, bf16=bf16)
    if cell.init != "checkpoint":
        sample = [material.images.get(int(labelled.shard_N[at]), int(labelled.row_N[at])) for at in train]
        centre(found.tower, torch.from_numpy(np.stack(sample[:_CENTRING_IMAGES])))
    classifier = Classifier(found.tower, len(labelled.labels))
    classifier.expect(labelled.truth_NL[train])
    return Classification(classifier.to(device), material.images, labelled, settings.augment, cell.seed, bf16=bf16)


def _name(cell: Cell, material: Material, found: Start, train: Ints) -> str:
    labelled = material.labelled
    seen = [labelled.images, labelled.labels, labelled.truth_NL.tolist(), train.tolist()]
    return fingerprint(
        {
            "cell": cell.model_dump(mode="json"),
            "tune": material.tune.semantic(),
            "weights": found.weights,
            "data": sha256_bytes(repr(seen).encode()),
        }
    )
