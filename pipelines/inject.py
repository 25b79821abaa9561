"""Inject: `resolved_findings` + `images` → `pairs` and `texts`, with the visual attributes of each finding written in.

A pair holds no pixels: it points at the row of ``images`` it belongs to and carries its study's findings as integers
with the ids of their text variants.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import hash64
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import training_texts
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard, read_manifest, run_folder
from medfilip.storage.run import Run, open_run
from medfilip.storage.schemas import IMAGES, PAIRS, RESOLVED_FINDINGS, TEXTS
from medfilip.storage.shards import decode_shard, iter_shards, read_shard, write_shard
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.runtime import map_parts
from pipelines.sentences import NumberedShard, numbered_shards
from serve.cluster import ray_session

_PAIR_COLUMNS = ["image_id", "study_id", "patient_id", "view", "split"]


class InjectSettings(JobSettings):
    """Settings of ``medfilip inject``."""

    findings: str = Field(description="run of an extract job")
    images: str = Field(description="run of an ingest job that read images")


SETTINGS = InjectSettings


def run(settings: InjectSettings, *, new_run: bool = False) -> Outcome:
    """Write the training pairs of a corpus; see the module's text."""
    findings, images = run_folder(settings.findings), run_folder(settings.images)
    findings_manifest, images_manifest = read_manifest(findings), read_manifest(images)
    ontology, knowledge = load_ontology(), load_knowledge()
    spec = job_spec(
        "inject",
        {},
        inputs={"findings": findings_manifest.fingerprint, "images": images_manifest.fingerprint},
        versions={"ontology": ontology.fingerprint, "knowledge": knowledge.fingerprint},
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as inject:
        if inject.manifest is not None:
            return _outcome(inject, settings, already_finished=True)
        with ray_session(settings.ray, settings.ray.address), inject.stage("pairs"):
            work = partial(
                _pair_shard,
                run=inject.location,
                staging=inject.staging,
                images=images,
                findings=findings,
                findings_manifest=findings_manifest,
            )
            records = map_parts(inject.staging, "pairs", work, numbered_shards(images_manifest, "images"))
            (texts,) = map_parts(
                inject.staging,
                "texts",
                partial(_merge_texts, run=inject.location, staging=inject.staging),
                [len(records)],
            )
        counts: Counter[str] = Counter()
        for record in records:
            counts.update(record["counts"])
        if not counts["images_with_findings"]:
            raise MedfilipError(
                ErrorCode.NO_TRAINING_PAIRS,
                f"None of the {counts['pairs']} images belongs to a study with findings.",
                fix="Ingest reports and images of one corpus in one run, so that they share study ids.",
            )
        pairs = [Shard(**record["shard"]) for record in records]
        inject.publish({"pairs": pairs, "texts": [Shard(**texts["shard"])]}, counts=counts)
    return _outcome(inject, settings)


def _outcome(inject: Run, settings: InjectSettings, *, already_finished: bool = False) -> Outcome:
    step = f"medfilip pretrain pairs={inject.location} images={settings.images}"
    return Outcome.of(inject, step, already_finished=already_finished)


def _pair_shard(
    numbered: NumberedShard,
    *,
    run: Location,
    staging: Location,
    images: Location,
    findings: Location,
    findings_manifest: Manifest,
) -> dict[str, Any]:
    number, shard = numbered
    ontology, knowledge = load_ontology(), load_knowledge()
    codebook = Codebook.of(ontology)
    table = read_shard(images, shard, IMAGES, _PAIR_COLUMNS)
    by_study = _findings_of(table["study_id"], findings, findings_manifest)
    texts: dict[int, dict[str, Any]] = {}
    coded: dict[str, list[dict[str, Any]]] = {}
    unknown = 0
    for study, rows in by_study.items():
        coded[study] = []
        for row in rows:
            code = codebook.encode(row)
            if code is None:
                unknown += 1
                continue
            variants = training_texts(row, knowledge, ontology)
            ids = [hash64(text) for text in variants]
            about = {"category": row["category"], "certainty": row["certainty"]}
            texts.update({i: {"text_id": i, "text": text, **about} for i, text in zip(ids, variants, strict=True)})
            coded[study].append({**code, "text_ids": ids})
    pairs = [
        {**row, "image_shard": number, "image_row": position, "findings": coded.get(row["study_id"], [])}
        for position, row in enumerate(table.to_pylist())
    ]
    name = f"part-{number:05d}.parquet"
    ordered = [texts[text_id] for text_id in sorted(texts)]
    write_shard(staging / "texts", name, TEXTS, TEXTS.from_rows(ordered))
    return {
        "shard": write_shard(run, f"pairs/{name}", PAIRS, PAIRS.from_rows(pairs)).model_dump(),
        "counts": {
            "pairs": len(pairs),
            "images_with_findings": sum(bool(pair["findings"]) for pair in pairs),
            "findings_outside_the_ontology": unknown,
        },
    }


def _findings_of(studies: pa.ChunkedArray, run: Location, manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """Return the resolved findings of some studies, reading one shard at a time."""
    wanted = pc.unique(studies)
    by_study: dict[str, list[dict[str, Any]]] = {}
    for table in iter_shards(run, manifest, RESOLVED_FINDINGS.name):
        for row in table.filter(pc.is_in(table["study_id"], value_set=wanted)).to_pylist():
            by_study.setdefault(row["study_id"], []).append(row)
    return by_study


def _merge_texts(parts: int, *, run: Location, staging: Location) -> dict[str, Any]:
    merged: dict[int, dict[str, Any]] = {}
    for number in range(parts):
        file = staging / f"texts/part-{number:05d}.parquet"
        merged.update({row["text_id"]: row for row in decode_shard(file.read_bytes(), file, TEXTS).to_pylist()})
    rows = [merged[text_id] for text_id in sorted(merged)]
    return {"shard": write_shard(run, "texts/part-00000.parquet", TEXTS, TEXTS.from_rows(rows)).model_dump()}
