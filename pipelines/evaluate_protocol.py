"""Evaluate protocol: a checkpoint on a public data set, with the split, the labels and the checks its protocol fixes.

Images are decoded and embedded in parts on the cluster, and measured as in any other evaluation, as far as the labels
allow. Thresholds are the checkpoint's or chosen on the protocol's validation split; every number is of its test split.
What cannot be read is in ``rejected``, and the record of what was evaluated is in ``protocol.json``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.diagnosis import DiagnosisResult, evaluate_diagnosis
from medfilip.evaluation.embedded import IMAGE_COLUMNS, PARTS, EmbeddedImages, Options, Part
from medfilip.evaluation.protocols.known import truth_of
from medfilip.evaluation.protocols.protocol import EVALUATED, load_protocol
from medfilip.evaluation.protocols.splits import check_filled
from medfilip.evaluation.provenance import run_of
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE, to_model, to_store
from medfilip.imaging.radiograph import Radiograph
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.storage.location import Location
from medfilip.storage.run import Run, open_run, register_file
from medfilip.storage.schemas import IMAGES, REJECTED
from medfilip.storage.shards import write_shard
from pipelines.embedding import diagnoser_of
from pipelines.evaluation_files import TRUTH, headline, write_files
from pipelines.images import characteristics
from pipelines.job import Outcome, job_spec
from pipelines.protocol_images import RECORD, DataSet, DataSetSettings, Image, Rows, in_parts, read_images
from pipelines.runtime import map_parts
from serve.cluster import ray_session

_ENCODE_BATCH = 64
_SHOWN = 8
Floats = NDArray[np.float32]


class EvaluateProtocolSettings(DataSetSettings):
    """Settings of ``medfilip evaluate protocol``."""

    protocol: str = Field(description="which; 'medfilip evaluate protocol --list' tells")
    data: str = Field(description="folder of the data set as it is shipped")
    checkpoint: str = Field(description="run of a pretrain job, or a checkpoint folder")
    exclusive: bool = Field(False, description="labels exclude each other: measure the choice of one of them too")
    parts: tuple[Part, ...] = Field(
        PARTS,
        description=f"what is measured beside zero-shot diagnosis, as far as the labels allow: {', '.join(PARTS)}",
    )
    resamples: int = Field(1000, ge=10, description="bootstrap resamples of patients behind an interval")
    seed: int = Field(0, ge=0, description="of the bootstrap")


SETTINGS = EvaluateProtocolSettings


def run(settings: EvaluateProtocolSettings, *, new_run: bool = False) -> Outcome:
    """Evaluate a checkpoint by a protocol; see the module's text."""
    load_protocol(settings.protocol)  # a wrong name is told before anything is looked for
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint))
    data_set = DataSet.of(settings.protocol, settings.data, settings)
    images = data_set.images(EVALUATED)
    inputs = {"checkpoint": sha256_bytes((checkpoint / "hashes.json").read_bytes()), **data_set.inputs(images)}
    places = ("data", "checkpoint")
    config = {name: value for name, value in settings.semantic().items() if name not in places}
    spec = job_spec("evaluate_protocol", config, inputs, {"ontology": load_ontology().fingerprint})
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as evaluate:
        already_finished = evaluate.manifest is not None
        if not already_finished:
            with ray_session(settings.ray, settings.ray.address), evaluate.stage("encode"):
                encoded = _encode(evaluate.staging, images, data_set, checkpoint)
            with evaluate.stage("score"):
                scored = score(settings, data_set, encoded, checkpoint)
            _publish(evaluate, data_set, encoded, scored, checkpoint)
        data_set.keep_lock()
    return Outcome.of(evaluate, f"open {evaluate.location / 'report.html'}", already_finished=already_finished)


def show(outcome: Outcome) -> None:
    """Print what was evaluated: whether it is the documented data set, and the fingerprint of the split."""
    numbers = json.loads((Location.parse(outcome.location) / RECORD).read_bytes())
    console = Console(highlight=False)
    for name in ("completeness", "files", "split fingerprint"):
        console.print(f"{name}: {numbers['facts'][name]}", markup=False)


@dataclass(frozen=True)
class Encoded:
    """What came of the images of all parts.

    Attributes
    ----------
    images
        Those that could be read, embedded.
    rejected
        Rows of the others.
    corrected
        How many images were turned or inverted.
    """

    images: EmbeddedImages
    rejected: Rows
    corrected: int


def _encode(staging: Location, images: Sequence[Image], data_set: DataSet, checkpoint: Location) -> Encoded:
    """Read and embed images on the cluster, in parts that are kept when the job is killed."""
    work = partial(encode_part, staging=staging, data=data_set.data, checkpoint=checkpoint, limits=data_set.limits)
    return read_encoded(staging, map_parts(staging, "encode", work, in_parts(images)))


def encode_part(
    numbered: tuple[int, Sequence[Image]],
    *,
    staging: Location,
    data: Location,
    checkpoint: Location,
    limits: ImageLimits,
) -> dict[str, Any]:
    """Read and embed the images of a part; one that cannot be read costs one image and is told."""
    number, images = numbered
    diagnoser = diagnoser_of(checkpoint)
    pixels: list[Floats] = []
    rows: list[dict[str, Any]] = []
    rejected: Rows = []
    corrected = 0
    for image, found in read_images(images, data, limits, rejected, stage="evaluate"):
        corrected += found.set_upright
        rows.append(_facts_of(image, found))
        pixels.append(to_model(to_store(found.pixels, DEFAULT_STORE_SIZE), diagnoser.image_size))
    batches = [
        diagnoser.encode_images(np.stack(pixels[begin : begin + _ENCODE_BATCH]))
        for begin in range(0, len(pixels), _ENCODE_BATCH)
    ]
    embedded = [row.tolist() for batch in batches for row in batch]
    table = IMAGES.from_rows(rows).select(list(IMAGE_COLUMNS))
    table = table.append_column("embedding", pa.array(embedded, pa.list_(pa.float32())))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    path = f"embeddings/part-{number:05d}.parquet"
    (staging / path).write_bytes(sink.getvalue().to_pybytes())
    return {"path": path, "rejected": rejected, "corrected": corrected}


def _facts_of(image: Image, found: Radiograph) -> dict[str, Any]:
    """Return the columns of an image that evaluation keeps; an image stands for a study."""
    return {
        "image_id": image.image_id,
        "study_id": image.image_id,
        "patient_id": image.patient,
        "view": found.view,
        "view_position": found.view_position,
        **characteristics(image.sex or found.sex, image.age or found.age),
        "split": image.split,
    }


def read_encoded(staging: Location, records: Sequence[dict[str, Any]]) -> Encoded:
    """Join what `encode_part` wrote.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` if no image of a split could be read.
    """
    parts = [pq.read_table(pa.BufferReader((staging / record["path"]).read_bytes())) for record in records]
    table = pa.concat_tables(parts)
    check_filled(Counter(table["split"].to_pylist()))
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    rejected = [row for record in records for row in record["rejected"]]
    images = EmbeddedImages(vectors, table.drop_columns(["embedding"]))
    return Encoded(images, rejected, sum(record["corrected"] for record in records))


@dataclass(frozen=True)
class Scored:
    """Numbers of the test split, and what is to be said of them."""

    diagnoser: Diagnoser
    diagnosis: DiagnosisResult
    facts: dict[str, str]


def score(settings: EvaluateProtocolSettings, data_set: DataSet, encoded: Encoded, checkpoint: Location) -> Scored:
    """Score the test split, as any other evaluation does."""
    diagnoser = Diagnoser.load(local_copy(checkpoint))
    options = Options(
        labels=data_set.table.protocol.categories, exclusive=settings.exclusive, parts=settings.parts,
        resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    diagnosis = evaluate_diagnosis(diagnoser, encoded.images, truth_of(data_set.table), load_knowledge(), options)
    facts = _facts(data_set, encoded, diagnosis)
    facts["model"] = diagnoser.fingerprint
    if data_set.is_phantom:
        facts["data"] = "phantoms in the layout of the data set, not the data set"
    return Scored(diagnoser, diagnosis, facts)


def _facts(data_set: DataSet, encoded: Encoded, diagnosis: DiagnosisResult) -> dict[str, str]:
    """Say in words what a reader of the numbers must know."""
    protocol, record = data_set.table.protocol, data_set.table.record
    unreadable = Counter(str(row["code"]) for row in encoded.rejected)
    told = {name.replace("_", " "): f"{count}" for name, count in record.left_out.items()}
    told |= {f"could not be read ({code})": f"{count}" for code, count in sorted(unreadable.items())}
    return {
        "protocol": f"{protocol.id}: {protocol.title}, {protocol.version}",
        "completeness": f"PARTIAL: {len(encoded.rejected)} images could not be read; {record.completeness}"
        if encoded.rejected
        else record.completeness,
        "files": record.pins,
        TRUTH: f"the labels of {protocol.title}",
        "split": protocol.split.official,
        "split fingerprint": record.split_fingerprint,
        "patients": "disjoint between splits" if record.patients_known else f"not known: {protocol.patients}",
        "patients of several splits": f"{record.shared_patients} in the data; none in what is evaluated",
        "views": f"{protocol.views} ({', '.join(f'{count} {view}' for view, count in record.views.items())})",
        "left out": "; ".join(f"{count} {reason}" for reason, count in told.items()) or "nothing",
        "silence": f"a label that is not stated is {protocol.silence}",
        "thresholds": _thresholds(diagnosis, len(encoded.images.of_split("validation"))),
        "notes": " ".join(protocol.notes),
        "licence": protocol.licence,
        "citation": protocol.citation,
    }


def _thresholds(diagnosis: DiagnosisResult, validation_images: int) -> str:
    """Say where the thresholds of the labels come from."""
    results = [diagnosis.zero_shot, *([diagnosis.unseen] if diagnosis.unseen else [])]
    labels = [item for result in results for item in result.labels]
    told = {
        "checkpoint": "the checkpoint's operating points",
        "validation": f"best F1 on {validation_images} images of the validation split",
        "default": "0.5, for want of a class in that split",
    }
    named = {source: [item.label for item in labels if item.threshold_from == source] for source in told}
    return "; ".join(f"{text} ({_few(named[source])})" for source, text in told.items() if named[source])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _publish(evaluate: Run, data_set: DataSet, encoded: Encoded, scored: Scored, checkpoint: Location) -> None:
    record, diagnosis = data_set.table.record, scored.diagnosis
    numbers = data_set.describe(encoded.rejected, facts=scored.facts, corrected=encoded.corrected)
    (evaluate.location / RECORD).write_bytes(json.dumps(numbers, indent=2).encode() + b"\n")
    trained = run_of(checkpoint)
    files = write_files(
        evaluate, scored.diagnoser, diagnosis, scored.facts,
        title=f"Evaluation on {data_set.table.protocol.title}", runs=[trained] if trained else [],
        synthetic=data_set.is_phantom or scored.diagnoser.versions.synthetic,
    )  # fmt: skip
    result = diagnosis.zero_shot
    counts = {
        "test_images": result.images,
        "test_patients": result.patients,
        "validation_images": len(data_set.table.rows("validation")),
        "labels": len(result.labels),
        "labels_without_both_classes": len(result.skipped),
        "images_left_out": sum(record.left_out.values()),
        "images_turned_or_inverted": encoded.corrected,
        "partial": int(bool(record.partial or encoded.rejected)),
    }
    refused = write_shard(
        evaluate.location, "rejected/part-00000.parquet", REJECTED, REJECTED.from_rows(encoded.rejected)
    )
    evaluate.publish(
        {"rejected": [refused]},
        files=[*files, register_file(evaluate.location, RECORD)],
        metrics=headline(diagnosis),
        counts=counts,
        rejected=Counter(str(row["code"]) for row in encoded.rejected),
    )
