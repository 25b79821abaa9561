"""Evaluate: how well findings are extracted and diagnosed zero-shot, with intervals, as one page and one JSON file.

Diagnosis is measured on the test split, with thresholds chosen on the validation split. The truth is what the reports
state, or, for phantoms, what was drawn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.extraction import ExtractionResult, evaluate_extraction
from medfilip.evaluation.metrics import Interval, best_threshold
from medfilip.evaluation.report import write_report
from medfilip.evaluation.zero_shot import ZeroShotResult, evaluate_zero_shot
from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import ABSENT, PRESENT, UNKNOWN, category_truth
from medfilip.imaging.preprocess import png_decode, to_model
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.phantom.corpus import PhantomTruth, read_truth
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, read_manifest, run_folder
from medfilip.storage.run import Run, open_run, register_file
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import iter_shards, read_dataset, read_shard
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.runtime import map_parts
from pipelines.sentences import NumberedShard, numbered_shards
from serve.cluster import ray_session

_ENCODE_BATCH = 64
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class EvaluateSettings(JobSettings):
    """Settings of ``medfilip evaluate``."""

    checkpoint: str = Field(description="run of a pretrain job, or a checkpoint folder")
    images: str = Field(description="run of an ingest job with reports and images")
    findings: str = Field(description="run of an extract job on those reports")
    phantom_truth: str | None = Field(None, description="corpus folder of a phantom run: the truth that was drawn")
    labels: tuple[str, ...] = Field((), description="categories to diagnose; empty: those with enough images")
    min_images: int = Field(3, ge=1, description="images with and without a category it takes to be chosen")
    resamples: int = Field(1000, ge=10, description="bootstrap resamples behind an interval")
    seed: int = Field(0, ge=0, description="of the bootstrap")


SETTINGS = EvaluateSettings


@dataclass(frozen=True)
class _Embedded:
    """Embedded images with their study, patient and split, in a fixed order."""

    images_ND: Floats
    studies: list[str]
    patients: list[str]
    splits: NDArray[np.str_]

    def rows(self, split: str) -> Ints:
        """Positions of a split's images."""
        return np.flatnonzero(self.splits == split)


def run(settings: EvaluateSettings, *, new_run: bool = False) -> Outcome:
    """Evaluate extraction and diagnosis; see the module's text."""
    images, findings = run_folder(settings.images), run_folder(settings.findings)
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint))
    truth = list(read_truth(Path(settings.phantom_truth))) if settings.phantom_truth else []
    images_manifest, findings_manifest = read_manifest(images), read_manifest(findings)
    inputs = {
        "checkpoint": sha256_bytes((checkpoint / "hashes.json").read_bytes()),
        "images": images_manifest.fingerprint,
        "findings": findings_manifest.fingerprint,
        "truth": sha256_bytes("".join(item.model_dump_json() for item in truth).encode()),
    }
    places = ("checkpoint", "images", "findings", "phantom_truth")
    config = {name: value for name, value in settings.semantic().items() if name not in places}
    spec = job_spec("evaluate", config, inputs, {"ontology": load_ontology().fingerprint})
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as evaluate:
        if evaluate.manifest is not None:
            return _outcome(evaluate, already_finished=True)
        with ray_session(settings.ray, settings.ray.address), evaluate.stage("encode"):
            work = partial(_encode_shard, staging=evaluate.staging, images=images, checkpoint=checkpoint)
            parts = map_parts(evaluate.staging, "encode", work, numbered_shards(images_manifest, "images"))
        embedded = _read_embedded(evaluate.staging, [part["path"] for part in parts])
        with evaluate.stage("score"):
            statements = _statements(findings, findings_manifest)
            drawn = _drawn(truth, images, images_manifest)
            diagnoser = Diagnoser.load(local_copy(checkpoint))
            zero_shot = _zero_shot(settings, diagnoser, embedded, statements, drawn)
            extraction = _extraction(settings, findings, findings_manifest, truth)
        facts = {
            "model": diagnoser.fingerprint,
            **{f"{name} fingerprint": value[:16] for name, value in inputs.items()},
        }
        facts["truth of diagnosis"] = "drawn by the phantom generator" if truth else "stated in the reports"
        _publish(evaluate, facts, zero_shot, extraction, synthetic=diagnoser.versions.synthetic)
    return _outcome(evaluate)


def _outcome(evaluate: Run, *, already_finished: bool = False) -> Outcome:
    return Outcome.of(evaluate, f"open {evaluate.location / 'report.html'}", already_finished=already_finished)


@lru_cache(maxsize=1)
def _diagnoser(checkpoint: Location) -> Diagnoser:
    return Diagnoser.load(local_copy(checkpoint))


def _encode_shard(
    numbered: NumberedShard, *, staging: Location, images: Location, checkpoint: Location
) -> dict[str, Any]:
    number, shard = numbered
    diagnoser = _diagnoser(checkpoint)
    table = read_shard(images, shard, IMAGES, ["study_id", "patient_id", "split", "pixels"])
    wanted = [split in ("validation", "test") for split in table["split"].to_pylist()]
    table = table.filter(pa.array(wanted, pa.bool_()))
    pixels = [to_model(png_decode(data), diagnoser.image_size) for data in table["pixels"].to_pylist()]
    encoded = [
        diagnoser.encode_images(np.stack(pixels[begin : begin + _ENCODE_BATCH]))
        for begin in range(0, len(pixels), _ENCODE_BATCH)
    ]
    rows = [row.tolist() for batch in encoded for row in batch]
    table = table.drop_columns(["pixels"]).append_column("embedding", pa.array(rows, pa.list_(pa.float32())))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    path = f"embeddings/part-{number:05d}.parquet"
    (staging / path).write_bytes(sink.getvalue().to_pybytes())
    return {"path": path}


def _read_embedded(staging: Location, paths: Sequence[str]) -> _Embedded:
    table = pa.concat_tables([pq.read_table(pa.BufferReader((staging / path).read_bytes())) for path in paths])
    if not table.num_rows:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            "There are no images in the splits 'validation' and 'test'.",
            fix="Ingest with larger shares split.validation and split.test.",
        )
    return _Embedded(
        np.asarray(table["embedding"].to_pylist(), np.float32),
        table["study_id"].to_pylist(),
        table["patient_id"].to_pylist(),
        np.asarray(table["split"].to_pylist()),
    )


def _statements(findings: Location, manifest: Manifest) -> dict[str, list[tuple[str, str]]]:
    """Return (category, certainty) of each resolved finding, by study."""
    found: dict[str, list[tuple[str, str]]] = {}
    columns = ["study_id", "category", "certainty"]
    for table in iter_shards(findings, manifest, "resolved_findings", columns):
        for row in table.to_pylist():
            found.setdefault(row["study_id"], []).append((row["category"], row["certainty"]))
    return found


def _drawn(truth: Sequence[PhantomTruth], images: Location, manifest: Manifest) -> dict[str, dict[str, int]]:
    """Return what was drawn (category → present or absent), by study."""
    if not truth:
        return {}
    reports = read_dataset(images, manifest, "reports", ["report_id", "study_id"])
    study_of = dict(zip(reports["report_id"].to_pylist(), reports["study_id"].to_pylist(), strict=True))
    known = {
        study_of[item.report_id]: {
            name: PRESENT if status.status == "present" else ABSENT for name, status in item.study_truth.items()
        }
        for item in truth
        if item.report_id in study_of
    }
    if not known:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            "No report of 'images' is in the truth of 'phantom_truth'.",
            fix="Give the corpus these images were made from, ingested with keep_report_ids=true.",
        )
    return known


def _zero_shot(
    settings: EvaluateSettings,
    diagnoser: Diagnoser,
    embedded: _Embedded,
    statements: Mapping[str, list[tuple[str, str]]],
    drawn: Mapping[str, dict[str, int]],
) -> ZeroShotResult:
    ontology, test = load_ontology(), embedded.rows("test")
    candidates = list(settings.labels) or sorted(
        {name for study in drawn.values() for name in study}
        or {name for said in statements.values() for name, _ in said if name in ontology.categories}
    )
    ontology.check_categories(settings.labels, "labels")

    def truths(label: str) -> Ints:
        if drawn:
            return np.array([drawn.get(study, {}).get(label, UNKNOWN) for study in embedded.studies])
        said = (statements.get(study, []) for study in embedded.studies)
        return np.array([category_truth(study, label, ontology) for study in said])

    truth_NL = np.array([truths(label) for label in candidates], np.int64).reshape(len(candidates), -1).T
    if not settings.labels:
        counts = [
            min((truth_NL[test, at] == value).sum() for value in (PRESENT, ABSENT)) for at in range(len(candidates))
        ]
        chosen = [at for at, count in enumerate(counts) if count >= settings.min_images]
        candidates, truth_NL = [candidates[at] for at in chosen], truth_NL[:, chosen]
    if not candidates:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            f"No category has {settings.min_images} test images with it and {settings.min_images} without.",
            fix="Evaluate more studies, or lower min_images.",
        )
    bank = diagnoser.encode_labels(candidates)
    validation = embedded.rows("validation")
    return evaluate_zero_shot(
        diagnoser.score(embedded.images_ND[test], bank),
        truth_NL[test],
        [embedded.patients[row] for row in test],
        thresholds=_thresholds(diagnoser, embedded.images_ND[validation], candidates, truth_NL[validation]),
        resamples=settings.resamples,
        seed=settings.seed,
    )


def _thresholds(diagnoser: Diagnoser, images_ND: Floats, labels: Sequence[str], truth_NL: Ints) -> dict[str, float]:
    """Choose each label's threshold on the validation split; 0.5 where that split lacks a class."""
    if not len(images_ND):
        return {}
    scores = diagnoser.score(images_ND, diagnoser.encode_labels(labels))
    found: dict[str, float] = {}
    for at, label in enumerate(labels):
        known = truth_NL[:, at] != UNKNOWN
        threshold = best_threshold(truth_NL[known, at], scores.probability_NL[known, at])
        if threshold is not None:
            found[label] = threshold
    return found


def _extraction(
    settings: EvaluateSettings, findings: Location, manifest: Manifest, truth: Sequence[PhantomTruth]
) -> ExtractionResult | None:
    if not truth:
        return None
    reports = [item.report_id for item in truth]
    expected = [
        {"report_id": item.report_id, **finding.model_dump(mode="json")} for item in truth for finding in item.findings
    ]
    mentions = read_dataset(findings, manifest, "mentions").to_pylist()
    known = set(reports)
    predicted = [mention for mention in mentions if mention["report_id"] in known]
    return evaluate_extraction(predicted, expected, reports, resamples=settings.resamples, seed=settings.seed)


def _publish(
    evaluate: Run,
    facts: Mapping[str, str],
    zero_shot: ZeroShotResult,
    extraction: ExtractionResult | None,
    *,
    synthetic: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = write_report(
            Path(folder),
            title="Evaluation",
            facts=facts,
            zero_shot=zero_shot,
            extraction=extraction,
            synthetic=synthetic,
        )
        for path in written:
            (evaluate.location / path.name).write_bytes(path.read_bytes())
        files = [register_file(evaluate.location, path.name) for path in written]
    metrics: dict[str, Interval | None] = {
        "zero_shot_macro_auroc_pos": zero_shot.macro_pos_auroc,
        "zero_shot_macro_auroc_pnc": zero_shot.macro_pnc_auroc,
    }
    if extraction is not None:
        metrics["extraction_f1_with_certainty"] = extraction.slots["certainty"].f1
    headline = {name: found.value for name, found in metrics.items() if found is not None}
    counts = {"test_images": zero_shot.images, "test_patients": zero_shot.patients, "labels": len(zero_shot.labels)}
    evaluate.publish({}, files=files, metrics=headline, counts=counts)
