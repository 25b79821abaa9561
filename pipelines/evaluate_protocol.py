"""Evaluate protocol: a checkpoint on a public data set, with the split, the labels and the checks its protocol fixes.

Images are decoded and embedded in parts on the cluster; thresholds are chosen on the protocol's validation split, and
every number is of its test split. What cannot be read is in ``rejected``, and the record of what was evaluated is in
``protocol.json``.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from medfilip.core.errors import MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_bytes
from medfilip.core.settings import operational
from medfilip.evaluation.diagnosis import DiagnosisResult
from medfilip.evaluation.protocols.protocol import EVALUATED, load_protocol
from medfilip.evaluation.protocols.record import check_fingerprint, check_lock, write_lock
from medfilip.evaluation.protocols.splits import check_filled
from medfilip.evaluation.protocols.table import ProtocolTable, read_protocol
from medfilip.evaluation.report import write_report
from medfilip.evaluation.zero_shot import choose_thresholds, evaluate_zero_shot
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.given import ACCEPTING
from medfilip.imaging.intake import take_in
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.listing import read_listed
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE, to_model, to_store
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.storage.location import Location
from medfilip.storage.run import Run, open_run, register_file
from medfilip.storage.schemas import REJECTED
from medfilip.storage.shards import write_shard
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.runtime import map_parts
from serve.cluster import ray_session

RECORD = "protocol.json"
_IMAGES_PER_PART = 512
_ENCODE_BATCH = 64
_PHANTOM = "phantom.json"
_SHOWN = 8
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class EvaluateProtocolSettings(JobSettings):
    """Settings of ``medfilip evaluate protocol``."""

    protocol: str = Field(description="which; 'medfilip evaluate protocol --list' tells")
    data: str = Field(description="folder of the data set as it is shipped")
    checkpoint: str = Field(description="run of a pretrain job, or a checkpoint folder")
    allow_partial: bool = Field(
        False, description="evaluate what is there of incomplete data; the result says that it is partial"
    )
    expected_split: str | None = operational(
        None, description="split fingerprint of an earlier run: other data are refused"
    )
    lock: str | None = operational(None, description="lock file: written if it is not there, held to if it is")
    limits: ImageLimits = Field(ImageLimits(), description="bounds on a file")
    resamples: int = Field(1000, ge=10, description="bootstrap resamples of patients behind an interval")
    seed: int = Field(0, ge=0, description="of the bootstrap")


SETTINGS = EvaluateProtocolSettings


class Image(NamedTuple):
    """What a worker needs to know of an image."""

    image_id: str
    name: str
    size: int
    view: str | None


def run(settings: EvaluateProtocolSettings, *, new_run: bool = False) -> Outcome:
    """Evaluate a checkpoint by a protocol; see the module's text."""
    protocol, data = load_protocol(settings.protocol), Location.parse(settings.data)
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint))
    lock = Location.parse(settings.lock) if settings.lock else None
    table = read_protocol(protocol, data, allow_partial=settings.allow_partial)
    if settings.expected_split:
        check_fingerprint(table.record, settings.expected_split)
    if lock is not None and lock.exists():
        check_lock(table.record, lock)
    images = _images(table)
    inputs = {
        "checkpoint": sha256_bytes((checkpoint / "hashes.json").read_bytes()),
        "record": fingerprint(table.record.model_dump(mode="json")),
        "images": fingerprint([list(image) for image in images]),
    }
    places = ("data", "checkpoint")
    config = {name: value for name, value in settings.semantic().items() if name not in places}
    spec = job_spec("evaluate_protocol", config, inputs, {"ontology": load_ontology().fingerprint})
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as evaluate:
        already_finished = evaluate.manifest is not None
        if not already_finished:
            with ray_session(settings.ray, settings.ray.address), evaluate.stage("encode"):
                encoded = _encode(evaluate.staging, images, settings, checkpoint)
            with evaluate.stage("score"):
                scored = _score(settings, table, encoded, checkpoint)
            _publish(evaluate, table, encoded, scored)
        if lock is not None and not lock.exists():
            write_lock(table.record, lock)
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
        Image id → embedding, of the images that could be read.
    rejected
        Rows of the others.
    corrected
        How many images were turned or inverted.
    """

    images: dict[str, Floats]
    rejected: list[dict[str, object]]
    corrected: int


def _images(table: ProtocolTable) -> list[Image]:
    rows = np.concatenate([table.rows(split) for split in EVALUATED])
    return [Image(table.image_ids[at], table.names[at], table.sizes[at], table.views[at]) for at in rows]


def _encode(
    staging: Location, images: Sequence[Image], settings: EvaluateProtocolSettings, checkpoint: Location
) -> Encoded:
    """Read and embed images on the cluster, in parts that are kept when the job is killed."""
    data = Location.parse(settings.data)
    work = partial(encode_part, staging=staging, data=data, checkpoint=checkpoint, limits=settings.limits)
    cuts = range(0, len(images), _IMAGES_PER_PART)
    parts = [(number, images[begin : begin + _IMAGES_PER_PART]) for number, begin in enumerate(cuts)]
    return _read_encoded(staging, map_parts(staging, "encode", work, parts))


@lru_cache(maxsize=1)
def _diagnoser(checkpoint: Location) -> Diagnoser:
    return Diagnoser.load(local_copy(checkpoint))


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
    diagnoser, decoder = _diagnoser(checkpoint), shared_decoder(limits)
    pixels: list[Floats] = []
    read: list[str] = []
    rejected: list[dict[str, object]] = []
    corrected = 0
    for image in images:
        try:
            content = read_listed(data, {"name": image.name, "bytes": image.size}, limits)
            found = take_in(content, limits, decoder, checks=ACCEPTING, stated_view=image.view)
        except MedfilipError as error:
            rejected.append({"id": image.image_id, "stage": "evaluate", "code": error.code, "message": error.message})
            continue
        corrected += found.set_upright
        read.append(image.image_id)
        pixels.append(to_model(to_store(found.pixels, DEFAULT_STORE_SIZE), diagnoser.image_size))
    batches = [
        diagnoser.encode_images(np.stack(pixels[begin : begin + _ENCODE_BATCH]))
        for begin in range(0, len(pixels), _ENCODE_BATCH)
    ]
    rows = [row.tolist() for batch in batches for row in batch]
    table = pa.table({"image_id": pa.array(read, pa.string()), "embedding": pa.array(rows, pa.list_(pa.float32()))})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    path = f"embeddings/part-{number:05d}.parquet"
    (staging / path).write_bytes(sink.getvalue().to_pybytes())
    return {"path": path, "rejected": rejected, "corrected": corrected}


def _read_encoded(staging: Location, records: Sequence[dict[str, Any]]) -> Encoded:
    images: dict[str, Floats] = {}
    for record in records:
        table = pq.read_table(pa.BufferReader((staging / record["path"]).read_bytes()))
        vectors = (np.asarray(vector, np.float32) for vector in table["embedding"].to_pylist())
        images.update(zip(table["image_id"].to_pylist(), vectors, strict=True))
    rejected = [row for record in records for row in record["rejected"]]
    return Encoded(images, rejected, sum(record["corrected"] for record in records))


@dataclass(frozen=True)
class _Split:
    """The readable images of a split."""

    images_ND: Floats
    truth_NL: Ints
    patients: list[str]


def _split(table: ProtocolTable, encoded: Encoded, name: str) -> _Split:
    rows = [at for at in table.rows(name) if table.image_ids[at] in encoded.images]
    check_filled({split: len(rows) if split == name else 1 for split in EVALUATED})
    return _Split(
        np.stack([encoded.images[table.image_ids[at]] for at in rows]),
        table.truth_NL[rows].astype(np.int64),
        [table.patients[at] for at in rows],
    )


@dataclass(frozen=True)
class _Scored:
    """Numbers of the test split, what is to be said of them, and whether something is synthetic."""

    diagnosis: DiagnosisResult
    facts: dict[str, str]
    synthetic: bool


def _score(settings: EvaluateProtocolSettings, table: ProtocolTable, encoded: Encoded, checkpoint: Location) -> _Scored:
    """Score the test split."""
    protocol, diagnoser = table.protocol, Diagnoser.load(local_copy(checkpoint))
    test, validation = _split(table, encoded, "test"), _split(table, encoded, "validation")
    bank = diagnoser.encode_labels(protocol.categories)
    thresholds = choose_thresholds(diagnoser.score(validation.images_ND, bank), validation.truth_NL)
    result = evaluate_zero_shot(
        diagnoser.score(test.images_ND, bank),
        test.truth_NL,
        test.patients,
        thresholds=thresholds,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    phantom = (Location.parse(settings.data) / _PHANTOM).exists()
    facts = _facts(table, encoded, thresholds, len(validation.patients))
    facts["model"] = diagnoser.fingerprint
    if phantom:
        facts["data"] = "phantoms in the layout of the data set, not the data set"
    return _Scored(DiagnosisResult(zero_shot=result), facts, phantom or diagnoser.versions.synthetic)


def _facts(
    table: ProtocolTable, encoded: Encoded, thresholds: dict[str, float], validation_images: int
) -> dict[str, str]:
    """Say in words what a reader of the numbers must know."""
    protocol, record = table.protocol, table.record
    unreadable = Counter(str(row["code"]) for row in encoded.rejected)
    halves = [label for label in protocol.categories if label not in thresholds]
    told = {name.replace("_", " "): f"{count}" for name, count in record.left_out.items()}
    told |= {f"could not be read ({code})": f"{count}" for code, count in sorted(unreadable.items())}
    return {
        "protocol": f"{protocol.id}: {protocol.title}, {protocol.version}",
        "completeness": f"PARTIAL: {len(encoded.rejected)} images could not be read; {record.completeness}"
        if encoded.rejected
        else record.completeness,
        "files": record.pins,
        "split": protocol.split.official,
        "split fingerprint": record.split_fingerprint,
        "patients": "disjoint between splits" if record.patients_known else f"not known: {protocol.patients}",
        "patients of several splits": f"{record.shared_patients} in the data; none in what is evaluated",
        "views": f"{protocol.views} ({', '.join(f'{count} {view}' for view, count in record.views.items())})",
        "left out": "; ".join(f"{count} {reason}" for reason, count in told.items()) or "nothing",
        "silence": f"a label that is not stated is {protocol.silence}",
        "thresholds": f"best F1 on {validation_images} images of the validation split"
        + (f"; 0.5 for {len(halves)} labels of which it lacks a class: {_few(halves)}" if halves else ""),
        "notes": " ".join(protocol.notes),
        "licence": protocol.licence,
        "citation": protocol.citation,
    }


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _publish(evaluate: Run, table: ProtocolTable, encoded: Encoded, scored: _Scored) -> None:
    record, protocol, facts = table.record, table.protocol, scored.facts
    result = scored.diagnosis.zero_shot
    numbers = {
        "facts": facts,
        "record": record.model_dump(mode="json"),
        "protocol": protocol.model_dump(mode="json"),
        "unreadable": dict(Counter(str(row["code"]) for row in encoded.rejected)),
        "corrected": encoded.corrected,
    }
    (evaluate.location / RECORD).write_bytes(json.dumps(numbers, indent=2).encode() + b"\n")
    with tempfile.TemporaryDirectory() as folder:
        title = f"Evaluation on {protocol.title}"
        written = write_report(
            Path(folder), title=title, facts=facts, diagnosis=scored.diagnosis, synthetic=scored.synthetic
        )
        for path in written:
            (evaluate.location / path.name).write_bytes(path.read_bytes())
        files = [register_file(evaluate.location, path) for path in (*(path.name for path in written), RECORD)]
    counts = {
        "test_images": result.images,
        "test_patients": result.patients,
        "validation_images": len(table.rows("validation")),
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
        files=files,
        metrics={f"zero_shot_macro_{name}": found.value for name, found in result.macro.items()},
        counts=counts,
        rejected=Counter(str(row["code"]) for row in encoded.rejected),
    )
