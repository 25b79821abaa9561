"""Heat maps of evaluation images against boxes, a shard of images a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from medfilip.core.ids import hash64
from medfilip.evaluation.examples import Example, choose
from medfilip.evaluation.grounding import Box, Pointed, point
from medfilip.evaluation.study_truth import studies_of_reports
from medfilip.imaging.preprocess import png_decode, to_model
from medfilip.model.heat_map import MapMethod
from medfilip.phantom.corpus import PhantomTruth
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.run import Run
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import read_shard
from pipelines.embedding import diagnoser_of
from pipelines.runtime import RaySettings, map_parts
from pipelines.sentences import NumberedShard, numbered_shards
from serve.cluster import ray_session

Boxes = Mapping[str, Mapping[str, Sequence[Box]]]
"""Study → category → boxes on its frontal image."""

_COLUMNS = ["image_id", "study_id", "patient_id", "split", "view", "source_height", "source_width", "pixels"]


def drawn_boxes(truth: Sequence[PhantomTruth], images: Location) -> dict[str, dict[str, list[Box]]]:
    """Return the boxes of what was drawn, by study of an ingest run and category."""
    study_of = studies_of_reports(images)
    found: dict[str, dict[str, list[Box]]] = {}
    for item in truth:
        for key, box in item.boxes.items():
            if item.report_id in study_of:
                category = key.partition("/")[0]
                found.setdefault(study_of[item.report_id], {}).setdefault(category, []).append(box)
    return found


def point_all(
    run: Run,
    images: Location,
    checkpoint: Location,
    boxes: Boxes,
    ray: RaySettings,
    *,
    examples: int = 0,
    method: MapMethod = "gradient",
) -> tuple[list[Pointed], tuple[Example, ...]]:
    """Compare the heat maps of all frontal validation and test images that have boxes; draw some of the test images."""
    work = partial(_point_shard, images=images, checkpoint=checkpoint, boxes=boxes, examples=examples, method=method)
    with ray_session(ray, ray.address), run.stage("heat_maps"):
        parts = map_parts(run.staging, f"heat_maps_{method}", work, numbered_shards(read_manifest(images), "images"))
    drawn = choose((Example(**item) for part in parts for item in part["examples"]), examples)
    return [Pointed(**_tuples(item)) for part in parts for item in part["found"]], drawn


def _point_shard(
    numbered: NumberedShard,
    *,
    images: Location,
    checkpoint: Location,
    boxes: Boxes,
    examples: int,
    method: MapMethod,
) -> dict[str, Any]:
    diagnoser = diagnoser_of(checkpoint)
    found: list[Pointed] = []
    drawn: list[Example] = []
    for row in read_shard(images, numbered[1], IMAGES, _COLUMNS).to_pylist():
        if row["split"] in ("validation", "test") and row["view"] != "lateral" and row["study_id"] in boxes:
            found += point(
                diagnoser,
                to_model(png_decode(row["pixels"]), diagnoser.image_size),
                boxes[row["study_id"]],
                (row["source_height"], row["source_width"]),
                patient=row["patient_id"],
                split=row["split"],
                method=method,
                seed=hash64(row["image_id"]) % (1 << 32),
                examples=drawn if examples and row["split"] == "test" else None,
            )
    return {
        "found": [asdict(item) for item in found],
        "examples": [asdict(item) for item in choose(drawn, examples)],
    }


def _tuples(item: Mapping[str, Any]) -> dict[str, Any]:
    """Undo what JSON does to tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}
