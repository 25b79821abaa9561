"""One label out of several that exclude each other, as in COVIDx: the best scored is the answer.

Reported two ways, as everywhere: by the positive prompts (POS), and by positive against negated prompts (PNC).

Legend of tensor names: N images, L labels, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.metrics import (
    Floats,
    Interval,
    Ints,
    Weights,
    divided,
    interval_of,
    resample_weights,
    weighted_sums,
)
from medfilip.model.diagnoser import Scores


class ChoiceResult(BaseModel):
    """Numbers of one way to choose.

    Attributes
    ----------
    accuracy, balanced_accuracy, macro_f1
        Over the labels that occur; balanced accuracy is the mean recall.
    confusion
        Row: truth, column: answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    confusion: tuple[tuple[int, ...], ...]


class SingleLabelResult(BaseModel):
    """Numbers of both ways to choose, and the labels that have no images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    patients: int
    labels: tuple[str, ...]
    missing: tuple[str, ...]
    chance: float
    pos: ChoiceResult
    pnc: ChoiceResult


def evaluate_single_label(
    scores: Scores, truth_N: Ints, patients: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> SingleLabelResult:
    """Evaluate the choice of one label an image.

    Parameters
    ----------
    scores
        Of all labels to choose from.
    truth_N
        Position of the right label of each image in ``scores.labels``.
    patients
        Patient of each image.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without images; ``SCHEMA_MISMATCH`` if a position is no label's or the lengths differ.
    """
    labels = len(scores.labels)
    if not len(truth_N) == len(patients) == len(scores.positive_NL) or ((truth_N < 0) | (truth_N >= labels)).any():
        raise MedfilipError(
            ErrorCode.SCHEMA_MISMATCH,
            f"{len(truth_N)} truths, {len(scores.positive_NL)} scored images and {len(patients)} patients do not "
            f"belong together, or a truth is not in [0, {labels}).",
            fix="Give each image the position of its one label.",
        )
    weights_RN = resample_weights(patients, resamples, seed)
    present = np.flatnonzero(np.bincount(truth_N, minlength=labels))
    return SingleLabelResult(
        images=len(truth_N),
        patients=len(set(patients)),
        labels=scores.labels,
        missing=tuple(label for at, label in enumerate(scores.labels) if at not in present),
        chance=1 / labels,
        pos=_choice(scores.positive_NL, truth_N, weights_RN, labels),
        pnc=_choice(scores.margins, truth_N, weights_RN, labels),
    )


def _choice(score_NL: Floats, truth_N: Ints, weights_RN: Weights, labels: int) -> ChoiceResult:
    answer_N = score_NL.argmax(axis=1)
    cell_NX = (truth_N * labels + answer_N)[:, None] == np.arange(labels**2)
    confusion_RLL = weighted_sums(weights_RN, cell_NX).reshape(-1, labels, labels)
    right_RL = np.diagonal(confusion_RLL, axis1=1, axis2=2)
    true_RL, answered_RL = confusion_RLL.sum(axis=2), confusion_RLL.sum(axis=1)
    occurs_L = true_RL[0] > 0

    def over(value_R: Floats) -> Interval:
        found = interval_of(value_R)
        assert found is not None
        return found

    return ChoiceResult(
        accuracy=over(divided(right_RL.sum(axis=1), true_RL.sum(axis=1))),
        balanced_accuracy=over(divided(right_RL, true_RL)[:, occurs_L].mean(axis=1)),
        macro_f1=over(divided(2 * right_RL, true_RL + answered_RL, otherwise=0.0)[:, occurs_L].mean(axis=1)),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion_RLL[0]),
    )
