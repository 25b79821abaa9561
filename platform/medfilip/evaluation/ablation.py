"""What each part of the method is worth: the same training without it, on the same images, seeds and steps.

An arm changes one thing (or, in the full grid, several) of the default. Arms are compared with the first one pair by
pair: on the same resamples of patients, so that an interval of a difference does not hold what the choice of patients
does to both.

Legend of tensor names: R resamples.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from medfilip.evaluation.metrics import Floats, Interval, interval_of
from medfilip.model.objectives import Objective
from medfilip.similarity.tables import SimilarityMode

Texts = Literal["conditioned", "category", "none", "sentences"]
Compared = Literal["pos_auroc", "pnc_auroc"]
COMPARED: tuple[Compared, ...] = get_args(Compared)


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes
    ----------
    attributes
        What training texts are written from: findings with attributes by their own slots (``conditioned``) or one
        description a category, findings alone (``none``), or the report's own sentences, which takes extraction away.
    similarity
        Mode of the targets.
    objective
        What is computed from them.
    """

    attributes: Texts = "conditioned"
    similarity: SimilarityMode = "factorised"
    objective: Objective = "soft_sigmoid"

    @property
    def name(self) -> str:
        """What differs from the default."""
        parts = [f"{slot} {value}" for slot, value in self.__dict__.items() if value != getattr(_DEFAULT, slot)]
        return ", ".join(parts) or "default"


_DEFAULT = Arm()


def arms(which: Literal["factors", "grid"]) -> tuple[Arm, ...]:
    """Return the default and all arms that change one thing of it, or all combinations, the default first."""
    options: dict[str, tuple[str, ...]] = {
        "attributes": get_args(Texts),
        "similarity": get_args(SimilarityMode),
        "objective": get_args(Objective),
    }
    if which == "grid":
        found = [Arm(*values) for values in itertools.product(*options.values())]  # type: ignore[arg-type]
        return tuple(sorted(found, key=lambda arm: arm != _DEFAULT))
    changed = [Arm(**{slot: value}) for slot, values in options.items() for value in values]  # type: ignore[arg-type]
    return (_DEFAULT, *(arm for arm in changed if arm != _DEFAULT))


class ArmResult(BaseModel):
    """Numbers of one arm.

    Attributes
    ----------
    metrics
        Means over the seeds.
    by_seed
        Metric → the value of each seed.
    difference
        To the first arm, positive where this one is better; empty for the first itself.
    checkpoints
        Fingerprint of each seed's model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    metrics: dict[Compared, Interval]
    by_seed: dict[Compared, tuple[float, ...]]
    difference: dict[Compared, Interval] = {}
    checkpoints: tuple[str, ...]


class AblationResult(BaseModel):
    """All arms in one table, with what they have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: tuple[str, ...]
    images: int
    patients: int
    seeds: tuple[int, ...]
    resamples: int
    arms: tuple[ArmResult, ...]


def compare(
    values: Mapping[str, Sequence[Mapping[Compared, Floats]]], checkpoints: Mapping[str, Sequence[str]]
) -> tuple[ArmResult, ...]:
    """Sum up arms.

    Parameters
    ----------
    values
        Arm → for each seed, metric → `medfilip.evaluation.zero_shot.macro_values`; the first arm is compared with.
    checkpoints
        Arm → fingerprint of each seed's model.
    """
    means = {
        arm: {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in COMPARED}
        for arm, seeds in values.items()
    }
    first = next(iter(means))
    return tuple(
        ArmResult(
            arm=arm,
            metrics=_intervals(mean),
            by_seed={metric: tuple(float(seed[metric][0]) for seed in values[arm]) for metric in COMPARED},
            difference={} if arm == first else _intervals({m: mean[m] - means[first][m] for m in COMPARED}),
            checkpoints=tuple(checkpoints[arm]),
        )
        for arm, mean in means.items()
    )


def _intervals(values: Mapping[Compared, Floats]) -> dict[Compared, Interval]:
    return {metric: found for metric, value_R in values.items() if (found := interval_of(value_R)) is not None}
