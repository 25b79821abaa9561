"""Probes of a fine-tuning job, and the one look at the test split that becomes ``transfer.json``.

Legend of tensor names: R runs (seeds), N images, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from medfilip.evaluation.metrics import Ints, interval, patient_resamples
from medfilip.model.checkpoint import load_checkpoint
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest
from medfilip.transfer.cells import Cell, cut_of, share
from medfilip.transfer.dice import dice, has_lesion
from medfilip.transfer.labelled import Labelled
from medfilip.transfer.probe import Floats, fit_probe
from medfilip.transfer.results import (
    Absent,
    Ranking,
    Statistic,
    TransferResult,
    TransferRow,
    dice_statistic,
    difference,
)
from medfilip.transfer.settings import Init, ProbeSettings
from medfilip.transfer.towers import stored_tower_hash
from pipelines.finetune_data import read_table
from pipelines.ray_finetune import CLASSIFY, SCORES, SEGMENT, EmbedPart, embed_shard
from pipelines.runtime import Progress, map_parts
from pipelines.sentences import numbered_shards

SCORED = "transfer.json"
_NO_WEIGHTS = "no weights were given: name a Hugging Face vision model or a folder with init_from=…"


def probe_cells(
    staging: Location,
    images: Location,
    manifest: Manifest,
    checkpoint: Location,
    labelled: Labelled,
    cells: Sequence[Cell],
    settings: ProbeSettings,
    *,
    init_from: str | None,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Embed the images with every tower, fit every cell's probe, and return the records by the cells' names."""
    towers = list(dict.fromkeys((cell.init, _tower_seed(cell)) for cell in cells))
    parts = [
        EmbedPart(init, seed, number, shard)
        for init, seed in towers
        for number, shard in numbered_shards(manifest, "images")
    ]
    embed = partial(
        embed_shard, staging=staging, images=images, checkpoint=checkpoint, init_from=init_from, kind=settings.features
    )
    embedded: dict[tuple[Init, int], list[dict[str, Any]]] = {tower: [] for tower in towers}
    for part, record in zip(parts, map_parts(staging, "embed", embed, parts, progress=progress), strict=True):
        embedded[part.init, part.seed].append(record)
    work = partial(_probe_cell, staging=staging, embedded=embedded, settings=settings)
    records = map_parts(staging, "probe", work, cells, progress=progress)
    return {cell.name: record for cell, record in zip(cells, records, strict=True)}


def _tower_seed(cell: Cell) -> int:
    """Return the seed of a cell's tower: a checkpoint is the same for all."""
    return 0 if cell.init == "checkpoint" else cell.seed


def _probe_cell(
    cell: Cell,
    *,
    staging: Location,
    embedded: Mapping[tuple[Init, int], Sequence[Mapping[str, Any]]],
    settings: ProbeSettings,
) -> dict[str, Any]:
    labelled = _labelled(staging)
    records = embedded[cell.init, _tower_seed(cell)]
    feature_NF = _features(staging, tuple(record["path"] for record in records))
    train, validation, test = share(cell, labelled), labelled.rows("validation"), labelled.rows("test")
    found = fit_probe(feature_NF, labelled.truth_NL, labelled.labels, (train, validation, test), settings)
    scores = {"scores": found.score_NL.astype(np.float32)}
    (staging / f"{SCORES}/{cell.name}.safetensors").write_bytes(safetensors.numpy.save(scores))
    return {
        **cell.model_dump(mode="json"),
        "weights": records[0]["weights"],
        "source": records[0]["source"],
        "features": records[0]["features"],
        "images": len(train),
        "patients": len(set(labelled.patients_of(train))),
        "strength": found.strength,
        "validation": found.quality,
        "labels_of_one_class": list(found.untrained),
        "labels_not_converged": list(found.unconverged),
    }


@lru_cache(maxsize=1)
def _labelled(staging: Location) -> Labelled:
    return Labelled.of_table(read_table(staging / CLASSIFY))


@lru_cache(maxsize=1)
def _features(staging: Location, paths: tuple[str, ...]) -> Floats:
    parts = [safetensors.numpy.load((staging / path).read_bytes())["features"] for path in paths]
    joined: Floats = np.concatenate([part for part in parts if len(part)]).astype(np.float64)
    return joined


def score(
    staging: Location,
    tables: Mapping[str, Labelled],
    records: Mapping[str, dict[str, Any]],
    cells: Sequence[Cell],
    *,
    checkpoint: Path,
    settings: dict[str, Any],
    facts: dict[str, Any],
    absent: Sequence[Init],
    synthetic: bool,
    resamples: int,
) -> TransferResult:
    """Compute every row's numbers and intervals from the scores of the test split."""
    rows: list[TransferRow] = []
    random: dict[tuple[str, float], Statistic] = {}
    # Random first: what the others are compared with.
    for (mode, init, fraction), group in groupby(
        sorted(cells, key=lambda cell: (cell.mode, cell.init != "random", cell.init, cell.fraction)),
        key=lambda cell: (cell.mode, cell.init, cell.fraction),
    ):
        runs = list(group)
        labelled = tables[SEGMENT if mode == "segment" else CLASSIFY]
        told = [records[cell.name] for cell in runs]
        scores = [_scores(staging, cell) for cell in runs]
        test = labelled.rows("test")
        samples = patient_resamples(labelled.patients_of(test), resamples)
        base = {"mode": mode, "init": init, "fraction": fraction, "runs": tuple(told)}
        if mode == "segment":
            dice_RN = np.stack([dice(one, cut_of(record)) for one, record in zip(scores, told, strict=True)])
            lesion_N = has_lesion(scores[0])
            statistic = dice_statistic(dice_RN, lesion_N)
            everything = dice_statistic(dice_RN, np.ones(len(test), np.bool_))
            base |= {"metric": "dice", "dice_all": interval(everything, len(test), samples)}
        else:
            score_RNL, truth_NL = np.stack(scores).astype(np.float64), labelled.truth_NL[test]
            ranking = Ranking(truth_NL, score_RNL)
            statistic = ranking.macro
            base |= {"metric": "auroc", "labels": ranking.label_rows(labelled.labels, samples)}
        base["value"] = interval(statistic, len(test), samples)
        base["over_random"] = _over_random(statistic, random.get((mode, fraction)), len(test), samples)
        if init == "random":
            random[mode, fraction] = statistic
        rows.append(TransferRow.model_validate(base))
    order = {(cell.mode, cell.init, cell.fraction): at for at, cell in enumerate(cells)}
    return TransferResult(
        synthetic=synthetic,
        checkpoint=load_checkpoint(checkpoint).fingerprint,
        tower_in_file=stored_tower_hash(checkpoint),
        settings=settings,
        facts=facts,
        rows=tuple(sorted(rows, key=lambda row: order[row.mode, row.init, row.fraction])),
        absent=tuple(Absent(init=init, reason=_NO_WEIGHTS) for init in absent),
    )


def _over_random(statistic: Statistic, other: Statistic | None, images: int, samples: Sequence[Ints]) -> Any:
    return interval(difference(statistic, other), images, samples) if other is not None else None


def _scores(staging: Location, cell: Cell) -> Any:
    return safetensors.numpy.load((staging / f"{SCORES}/{cell.name}.safetensors").read_bytes())["scores"]
