"""Zero-shot diagnosis of the validation split while a model is trained, and the model that is published at the end.

This is a look at the course of a run. The evaluation proper, on the test split and with intervals, is
`medfilip.evaluation.zero_shot`, which stands above training and may not be used here.

Legend of tensor names: N units, L categories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfilip.findings.truth import ABSENT, PRESENT, UNKNOWN
from medfilip.model.checkpoint import load_checkpoint, write_checkpoint
from medfilip.model.diagnoser import Diagnoser
from medfilip.training.data import PairSet
from medfilip.training.loop import embed_units, stated_truth
from medfilip.training.settings import TrainSettings

CATEGORIES = "zero_shot_categories"
"""The metric that is always there: the number of categories in the means."""


def zero_shot_metrics(
    checkpoint: Path, pairs: PairSet, settings: TrainSettings, device: str = "cpu"
) -> dict[str, float]:
    """Measure a checkpoint on a split, with what its reports state as the truth.

    Returns
    -------
    dict
        Mean AUROC over the categories with both classes, by the positive prompt alone (``zero_shot_pos_auroc``) and
        against the negated one (``zero_shot_pnc_auroc``), and their number; without such categories the number alone.
    """
    from sklearn.metrics import roc_auc_score

    names, truth_NL = stated_truth(pairs, settings)
    both = [at for at in range(len(names)) if {PRESENT, ABSENT} <= set(truth_NL[:, at].tolist())]
    found = {CATEGORIES: float(len(both))}
    if not both:
        return found
    diagnoser = Diagnoser.load(checkpoint, device)
    bank = diagnoser.encode_labels([names[at] for at in both])
    scores = diagnoser.score(embed_units(diagnoser, pairs, settings)[0], bank)
    for name, score_NL in (("pos", scores.positive_NL), ("pnc", scores.margins)):
        areas = []
        for column, at in enumerate(both):
            known_N = truth_NL[:, at] != UNKNOWN
            areas.append(roc_auc_score(truth_NL[known_N, at], score_NL[known_N, column]))
        found[f"zero_shot_{name}_auroc"] = float(np.mean(areas))
    return found


def write_model(trained: Path, folder: Path, metrics: Mapping[str, float]) -> dict[str, float]:
    """Write a training checkpoint without what only training needs; return its metrics, with those given added."""
    model = load_checkpoint(trained)
    numbers = {**model.metrics, **metrics}
    write_checkpoint(replace(model, metrics=numbers), folder)
    return {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}
