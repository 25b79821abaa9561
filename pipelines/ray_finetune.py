"""The cells of a fine-tuning on Ray: towers embed shards in tasks, Ray Train tunes cell after cell.

The tuning itself is `medfilip.transfer`, which knows nothing of Ray. One group of workers runs all cells that are left;
each begins with the latest state of its own, if there is one, and ends with a record.
"""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.numpy
import safetensors.torch
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.model.checkpoint import HASHES
from medfilip.model.distributed import World
from medfilip.model.locate import local_copy
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard, read_manifest
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import read_shard
from medfilip.training.images import ShardedImages, preprocessing
from medfilip.transfer.cells import Cell, Material, Tuned, cut_of, tune
from medfilip.transfer.labelled import Labelled
from medfilip.transfer.masks import ModelMasks
from medfilip.transfer.probe import features, kind_of
from medfilip.transfer.saved import SavedConfig, saved_files
from medfilip.transfer.settings import Init, TuneSettings
from medfilip.transfer.towers import Start, start, weights_hash
from pipelines.finetune_data import LISTED, MaskPlace, read_table
from pipelines.ray_group import GroupReporter, Placement, run_group, take_device, told
from pipelines.runtime import Progress

CLASSIFY, SEGMENT = "classify.parquet", "segment.parquet"
RECORDS, SCORES, MODELS = "records/tune", "scores", "models"
_EMBEDDED_AT_ONCE = 64


class TuneTask(BaseModel):
    """What workers are told; plain data, because Ray Train keeps it as JSON.

    Attributes
    ----------
    run
        Id of the run, by which Ray Train finds what it has of it.
    staging
        Where tables lie, and records, scores and models are written.
    masks
        Where masks lie, for segmentation.
    category
        What is segmented.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    staging: str
    images: str
    checkpoint: str
    init_from: str | None
    masks: MaskPlace | None
    category: str
    cells: tuple[Cell, ...]
    tune: TuneSettings
    synthetic: bool

    def done(self) -> set[str]:
        """Return the names of the cells that have a record."""
        return {file.name.removesuffix(".json") for file in (Location.parse(self.staging) / RECORDS).children()}


class EmbedPart(NamedTuple):
    """A shard to embed with a tower."""

    init: Init
    seed: int
    number: int
    shard: Shard


def embed_shard(
    part: EmbedPart, *, staging: Location, images: Location, checkpoint: Location, init_from: str | None, kind: str
) -> dict[str, Any]:
    """Embed the images of a shard with a frozen tower; the record tells its weights' hash, before and after."""
    import numpy as np
    import torch

    from medfilip.imaging.preprocess import png_decode, to_model

    found = _start(part.init, checkpoint, part.seed, init_from)
    pixels = read_shard(images, part.shard, IMAGES, ["pixels"])["pixels"].to_pylist()
    size, parts, chosen = found.config.image_size, [], kind_of(part.init, kind)
    for begin in range(0, len(pixels), _EMBEDDED_AT_ONCE):
        batch = np.stack([to_model(png_decode(data), size) for data in pixels[begin : begin + _EMBEDDED_AT_ONCE]])
        parts.append(features(found.tower, torch.from_numpy(batch), chosen))
    path = f"features/{part.init}-{part.seed}/part-{part.number:05d}.safetensors"
    embedded = torch.cat(parts) if parts else torch.zeros(0, 0)
    (staging / path).write_bytes(safetensors.torch.save({"features": embedded.contiguous()}))
    after = weights_hash(found.tower.state_dict())
    if after != found.weights:
        raise MedfilipError(
            ErrorCode.INTERNAL,
            "A frozen tower changed while it computed features.",
            fix="Report this, with the vision model it happened with.",
        )
    return {"path": path, "weights": found.weights, "source": found.source, "features": chosen}


@lru_cache(maxsize=2)
def _start(init: Init, checkpoint: Location, seed: int, init_from: str | None) -> Start:
    return start(init, local_copy(checkpoint), seed, init_from)


def tune_cells(task: TuneTask, placement: Placement, show: Progress) -> None:
    """Run Ray Train until every cell has a record; a second call for the same run resumes.

    Raises
    ------
    MedfilipError
        What a cell failed with.
    """
    if {cell.name for cell in task.cells} <= task.done():
        return
    shown = show("tune", "cells", len(task.cells), lambda: len(task.done()))
    run_group(tune_worker, task.model_dump(mode="json"), task.run, placement, shown)


def tune_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Tune the cells that are left, in one process of a group that Ray Train has set up.

    Returns
    -------
    dict
        Nothing, or the error that all processes ran into.
    """
    task, world = TuneTask.model_validate(config), World.current()
    take_device()

    def work() -> dict[str, Any]:
        # Rank 0 may write a record while another process looks: what is left is for one of them to say.
        done = _of_rank_0(sorted(task.done()), world)
        for cell in task.cells:
            if cell.name not in done:
                _tune_cell(cell, task, world)
        return {}

    return told(work)


def _tune_cell(cell: Cell, task: TuneTask, world: World) -> None:
    staging = Location.parse(task.staging)
    with tempfile.TemporaryDirectory() as workdir:
        material = _material(task, segment=cell.mode == "segment")
        found = tune(cell, material, world, GroupReporter(Path(workdir)), Path(workdir))
    if world.rank != 0:
        return
    scores = {"scores": found.scores}
    (staging / f"{SCORES}/{cell.name}.safetensors").write_bytes(safetensors.numpy.save(scores))
    _keep_best(task, cell, found, material.labelled.labels)
    (staging / f"{RECORDS}/{cell.name}.json").write_bytes(json.dumps(found.record).encode())


def _keep_best(task: TuneTask, cell: Cell, found: Tuned, labels: tuple[str, ...]) -> None:
    """Write the model of a cell if none of its mode was better on the validation split."""
    staging = Location.parse(task.staging)
    earlier = [json.loads(file.read_bytes()) for file in (staging / RECORDS).children()]
    best = max((one["validation"] for one in earlier if one["mode"] == cell.mode), default=None)
    if best is not None and best >= found.record["validation"]:
        return
    config = SavedConfig(labels=labels, model=found.config, synthetic=task.synthetic)
    if cell.mode == "segment":
        cut = cut_of(found.record)
        changes = {"width": task.tune.width, "threshold": cut.threshold, "area": cut.area}
        config = config.model_copy(update=changes)
    files = saved_files(found.model, config, found.record)
    listed = json.dumps({name: sha256_bytes(data) for name, data in sorted(files.items())}, indent=2)
    for name, data in {**files, HASHES: listed.encode()}.items():
        (staging / f"{MODELS}/{cell.mode}/{name}").write_bytes(data)


@lru_cache(maxsize=2)
def _material(task: TuneTask, *, segment: bool) -> Material:
    staging, images = Location.parse(task.staging), Location.parse(task.images)
    checkpoint = local_copy(Location.parse(task.checkpoint))
    size = start("checkpoint", checkpoint, 0).config.image_size
    masks = None
    if segment:
        assert task.masks is not None
        listed = read_table(staging / LISTED)
        masks = ModelMasks(task.masks.source(images, listed), task.category, listed, size)
    cache_mb = task.tune.image_cache_mb
    return Material(
        checkpoint=checkpoint,
        init_from=task.init_from,
        labelled=Labelled.of_table(read_table(staging / (SEGMENT if segment else CLASSIFY))),
        images=ShardedImages(images, read_manifest(images), preprocessing(size), cache_mb=cache_mb),
        tune=task.tune,
        mask=masks,
    )


def _of_rank_0(names: list[str], world: World) -> list[str]:
    from torch import distributed as dist

    if world.size == 1:
        return names
    box = [names]
    dist.broadcast_object_list(box, src=0)
    return box[0]
