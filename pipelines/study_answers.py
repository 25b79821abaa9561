"""The second stage of a batch of studies: their embedded images → diagnoses, by the endpoint's own code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medfilip.answers import ImageFacts
from medfilip.model.question import Question
from medfilip.storage.location import Location
from medfilip.storage.schemas import DIAGNOSED_IMAGES, DIAGNOSES
from medfilip.storage.shards import read_staged, write_shard
from pipelines.model_pool import ModelPool
from pipelines.runtime import Attempts, Progress, run_stream
from pipelines.study_stages import ENCODED, Place, Studies
from serve.messages import Decoded, Refused

OUTCOMES = ("present", "absent", "uncertain", "view", "study")
"""What is decided about a label, or why nothing is."""
_NO_PIXELS = np.zeros((1, 0, 0), np.float32)


def answer_studies(
    run: Location,
    staging: Location,
    studies: Studies,
    question: Question,
    pool: ModelPool,
    studies_per_shard: int,
    show: Progress,
) -> list[dict[str, Any]]:
    """Answer a question about every study, a shard of studies at a time; finished shards are not answered again.

    Returns
    -------
    list of dict
        A record for each shard; see `ShardAnswerer`.
    """
    import ray

    records = staging / "records" / "answer"
    done = {file.name for file in records.children()}
    begins = range(0, len(studies), studies_per_shard)
    names = [f"part-{number:05d}" for number in range(len(begins))]
    waiting = [
        {"shard": name, "studies": json.dumps(studies[begin : begin + studies_per_shard])}
        for name, begin in zip(names, begins, strict=True)
        if f"{name}.json" not in done
    ]
    if waiting:
        items = ray.data.from_items(waiting, override_num_blocks=len(waiting))
        given = (run, staging, pool, question, Attempts.of(staging, "answer"))
        answered = items.map(ShardAnswerer, fn_constructor_args=given, **pool.resources())
        with show("answer", "shards", len(names), lambda: len(records.children())):
            run_stream(answered)
    return [json.loads((records / f"{name}.json").read_bytes()) for name in names]


@dataclass(frozen=True)
class ShardAnswerer:
    """Answers a question about the studies of a shard and writes it; an actor of Ray Data."""

    run: Location
    staging: Location
    pool: ModelPool
    question: Question
    attempts: Attempts

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Answer and write a shard; its record, with what was decided, is written last."""
        name = str(row["shard"])
        self.attempts.count(name)
        studies: Studies = [[Place(*place) for place in study] for study in json.loads(row["studies"])]
        encoded, model = self._encoded(studies), self.pool.service().card().fingerprint
        diagnoses: list[dict[str, Any]] = []
        images: list[dict[str, Any]] = []
        for study in studies:
            rows = [encoded[place] for place in study]
            facts = [ImageFacts.model_validate_json(image["facts"]) for image in rows]
            diagnoses += self._diagnoses(rows, facts, model)
            images += [_image_row(image, told, at) for at, (image, told) in enumerate(zip(rows, facts, strict=True))]
        shards = {
            schema.name: write_shard(self.run, f"{schema.name}/{name}.parquet", schema, schema.from_rows(written))
            for schema, written in ((DIAGNOSES, diagnoses), (DIAGNOSED_IMAGES, images))
        }
        record = {
            "shards": {dataset: shard.model_dump() for dataset, shard in shards.items()},
            "studies": len(studies),
            "label_set": diagnoses[0]["label_set"],
            **_counted(diagnoses),
        }
        (self.staging / "records" / "answer" / f"{name}.json").write_bytes(json.dumps(record).encode())
        return {"shard": name}

    def _encoded(self, studies: Studies) -> dict[Place, dict[str, Any]]:
        wanted: dict[str, list[int]] = {}
        for place in (place for study in studies for place in study):
            wanted.setdefault(place.chunk, []).append(place.row)
        found: dict[Place, dict[str, Any]] = {}
        for chunk, rows in wanted.items():
            table = read_staged(self.staging / "encoded" / chunk, ENCODED)
            for row, image in zip(rows, table.take(rows).to_pylist(), strict=True):
                found[Place(chunk, row)] = image
        return found

    def _diagnoses(
        self, rows: Sequence[Mapping[str, Any]], facts: Sequence[ImageFacts], model: str
    ) -> list[dict[str, Any]]:
        views = [np.array(image["view_D"], np.float32) for image in rows]
        # An answer without heat maps looks at no pixels.
        told = self.pool.service().answer(self.question, views, [Decoded(_NO_PIXELS, item) for item in facts])
        if isinstance(told, Refused):
            raise told.error()
        answered = told.answered
        of_study = {
            "study_id": rows[0]["study_id"],
            "abstentions": list(answered.abstentions),
            "unfamiliarity": answered.unfamiliarity,
            "images": len(rows),
            "views": [item.view for item in facts],
            "quality": list(dict.fromkeys(flag for item in facts for flag in item.quality)),
            "model": model,
            "label_set": answered.label_set,
        }
        return [finding.model_dump(exclude={"heat_map"}) | of_study for finding in answered.findings]


def _image_row(image: Mapping[str, Any], facts: ImageFacts, position: int) -> dict[str, Any]:
    told = {name: getattr(facts, name) for name in ("view", "rows", "columns", "photometric", "transfer_syntax")}
    ids = {name: image[name] for name in ("image_id", "study_id", "path")}
    return {**ids, **told, "position": position, "quality": list(facts.quality)}


def _counted(diagnoses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how often each outcome was decided for a label, and how many studies abstain for a reason."""
    labels: dict[str, Counter[str]] = {}
    reasons = {row["study_id"]: row["abstentions"] for row in diagnoses}
    for row in diagnoses:
        labels.setdefault(row["label"], Counter())[row["abstention"] or row["decision"]] += 1
    return {
        "labels": {label: dict(found) for label, found in labels.items()},
        "abstentions": dict(Counter(reason for found in reasons.values() for reason in found)),
    }
