"""A checkpoint of the small world of the training tests, its images and its truth, ready to be fine-tuned."""

from __future__ import annotations

import numpy as np

from medfilip.transfer.cells import Cell, Material
from medfilip.transfer.labelled import Labelled
from medfilip.transfer.settings import TuneSettings
from tests.unit.training.synthetic import CATEGORIES, Pictures, studies


def labelled(count=40, seed=0):
    """Return pixels and a table: two images a patient, patients 0-9 in train, then validation, then test."""
    pixels, _, truth = studies(count, seed)
    patients = [f"p{at // 2}" for at in range(count)]
    third = count // 4
    splits = ["train"] * (count - 2 * third) + ["validation"] * third + ["test"] * third
    truth = truth.copy()
    truth[::7, 0] = -1
    return pixels, Labelled(
        tuple(f"i{at}" for at in range(count)), tuple(patients), tuple(splits),
        np.zeros(count, np.int64), np.arange(count), CATEGORIES, truth,
    )  # fmt: skip


def bright_mask(pixels):
    """Return a mask of what was drawn: the rows at the bottom that are brighter than noise."""
    found = pixels[:, 0] > 1
    found[:, :-8] = False
    return found


def material(checkpoint, *, segment=False, **tune):
    pixels, table = labelled()
    settings = TuneSettings(**{"steps": 6, "global_batch": 8, "evaluate_every": 2, "width": 8, **tune})
    masks = bright_mask(pixels)
    if segment:
        truth = masks.any(axis=(1, 2)).astype(np.int64)[:, None]
        table = Labelled(
            table.images, table.patients, table.splits, table.shard_N, table.row_N, ("pleural_effusion",), truth
        )
    return Material(
        checkpoint=checkpoint,
        init_from=None,
        labelled=table,
        images=Pictures(pixels),
        tune=settings,
        mask=(lambda at: masks[at]) if segment else None,
    )


def cell(mode="full", init="checkpoint", fraction=1.0, seed=0):
    return Cell(mode=mode, init=init, fraction=fraction, seed=seed)
