"""Distill: findings of sentences, gold, phantoms and generated sentences → a small language model that extracts.

The training set holds every sentence once, its readings checked, compared and balanced; the student is trained by Ray
Train, measured on sentences that were held out, and published only if it passes the gate.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator
from rich.console import Console
from rich.table import Table

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.core.settings import operational
from medfilip.distillation.base import base_fingerprint, base_folder
from medfilip.distillation.card import add_metrics
from medfilip.distillation.grammar import load_grammar
from medfilip.distillation.join import Mixture
from medfilip.distillation.quality import Gate, require_quality
from medfilip.distillation.sentences import GENERATOR_VERSION
from medfilip.distillation.settings import DistillSettings
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.prompt import load_prompt
from medfilip.findings.ontology import load_ontology
from medfilip.reports.sentences import SPLITTER_VERSION
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest, run_folder
from medfilip.storage.run import Run, RunSpec, open_run, register_file
from pipelines.distill_data import TRAINING_SET, Taught, Teacher, gold_of, make_training_set
from pipelines.distill_phantom import Corpus
from pipelines.job import Outcome, job_spec
from pipelines.ray_distill import (
    LOGS,
    MODEL,
    DistillTask,
    Scores,
    download,
    measure_student,
    prepare_student,
    train_student,
    upload,
)
from pipelines.ray_group import GroupSettings, cluster_resources, placement
from serve.cluster import ray_session

QUALITY, LOG = "quality.json", "log.jsonl"
_IN_INPUTS = ("findings", "gold", "phantom")
_NUMBERS = ("valid", "grounded", "kept", "f1", "category_f1")


class DistillJobSettings(GroupSettings):
    """Settings of ``medfilip distill``."""

    findings: tuple[str, ...] = Field((), description="runs of extract jobs: what their engines read is learnt")
    teacher: Teacher = Field(
        "settled",
        description="whose readings: settled (those that count in the run), or of a run of engine=auto rules or model",
    )
    gold: tuple[str, ...] = Field((), description="files that 'medfilip review' wrote; they count before any engine")
    gold_weight: int = Field(1, ge=1, le=100, description="times a reviewed sentence stands in the training rows")
    phantom: tuple[str, ...] = Field(
        (), description="folders 'corpus' of phantom runs: what their reports state is known exactly"
    )
    synthetic: int = Field(0, ge=0, description="sentences to generate, in blocks of 2000")
    synthetic_seed: int = Field(0, ge=0, description="of the generated sentences")
    phenomenon_share: float = Field(
        0.3, gt=0, le=1, description="largest share of one phenomenon (negation, list, …) among the rows; gold stays"
    )
    test_share: float = Field(0.02, gt=0, le=0.5, description="share of the sentences that is held out to measure by")
    gold_test_share: float = Field(0.2, gt=0, le=0.5, description="the same of the reviewed sentences")
    test_rows: int = Field(2_000, ge=1, description="held-out rows, beside gold, that are replied to at most")
    train: DistillSettings = Field(DistillSettings(), description="the student and its training")
    gate: Gate = operational(
        Gate(), description="least quality of a student that is published; it can be lowered without a new training"
    )

    @field_validator("findings", "gold", "phantom", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> DistillJobSettings:
        if not (self.findings or self.gold or self.phantom or self.synthetic):
            raise ValueError("give something to learn from: findings, gold, phantom or synthetic")
        return self

    @property
    def mixture(self) -> Mixture:
        """How sources are joined."""
        return Mixture(self.test_share, self.gold_test_share, self.phenomenon_share, self.gold_weight)


SETTINGS = DistillJobSettings


def run(settings: DistillJobSettings, *, new_run: bool = False) -> Outcome:
    """Train a student; see the module's text.

    Raises
    ------
    MedfilipError
        ``QUALITY_TOO_LOW`` below the gate: nothing is published, and the same command goes on from the measurement.
    """
    _check_base(settings.train)
    folders = [run_folder(name) for name in settings.findings]
    manifests = [read_manifest(folder) for folder in folders]
    taught = [
        Taught.of(folder, manifest, settings.teacher)
        for folder, manifest in zip(folders, manifests, strict=True)
    ]  # fmt: skip
    gold, hashes = gold_of(settings.gold)
    phantoms = [Corpus.of(Location.parse(name)) for name in settings.phantom]
    inputs = {
        **{f"findings_{number}": manifest.fingerprint for number, manifest in enumerate(manifests)},
        **{f"phantom_{number}": corpus.fingerprint for number, corpus in enumerate(phantoms)},
        **hashes,
    }
    with open_run(Location.parse(settings.root), _spec(settings, inputs), new_run=new_run) as distill:
        storage = settings.storage_of(distill)
        already_finished = distill.manifest is not None
        if distill.manifest is not None:
            _require(_scores_of(distill.location), settings.gate)
        else:
            with ray_session(settings.ray, settings.ray.address):
                with distill.stage("readings"):
                    made = make_training_set(
                        distill, taught, gold, settings.mixture, phantoms=phantoms, synthetic=settings.synthetic,
                        seed=settings.synthetic_seed, prompt=settings.train.prompt, progress=settings.progress,
                    )  # fmt: skip
                audit, scores = _train(settings, distill, storage)
            _require(scores, settings.gate)
            counts = {**made.rows, **audit}
            dropped = {**made.dropped, "too_many_tokens": counts.pop("too_many_tokens")}
            _publish(distill, scores, counts, {reason: number for reason, number in dropped.items() if number})
        (storage / distill.run_id).delete()
    return _outcome(distill, already_finished=already_finished)


def show(outcome: Outcome) -> None:
    """Print the numbers of the student beside those of what it was compared with."""
    scores = _scores_of(Location.parse(outcome.location))
    table = Table(box=None, padding=(0, 2, 0, 1))
    for title in ("held out", "sentences", "engine", *_NUMBERS):
        table.add_column(title.replace("_", " "), no_wrap=True)
    for name, pair in scores.items():
        for quality in (pair.student, pair.other):
            numbers = (f"{getattr(quality, number):.3f}" for number in _NUMBERS)
            table.add_row(name, f"{quality.sentences:,}", quality.engine, *numbers)
    Console(highlight=False).print(table)


def _check_base(train: DistillSettings) -> None:
    """Refuse what the training could not begin with, before anything is started."""
    if train.base:
        base_folder(train.base)
    if train.lora_rank and find_spec("peft") is None:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING,
            "An adapter (train.lora_rank above 0) needs peft, which is not installed.",
            fix="Install medfilip[distill], or train all weights with train.lora_rank=0.",
        )


def _spec(settings: DistillJobSettings, inputs: dict[str, str]) -> RunSpec:
    config = {name: value for name, value in settings.semantic().items() if name not in _IN_INPUTS}
    config["train"] = {name: value for name, value in config["train"].items() if name != "base"}
    versions = {
        "ontology": load_ontology().fingerprint,
        "prompt": load_prompt(settings.train.prompt).fingerprint,
        "rules": LexiconEngine().fingerprint,
        "splitter": SPLITTER_VERSION,
        "generator": fingerprint([GENERATOR_VERSION, load_grammar().fingerprint]),
    }
    if settings.train.base:
        inputs = {**inputs, "base": base_fingerprint(settings.train.base)}
    return job_spec("distill", config, inputs, versions)


def _train(settings: DistillJobSettings, distill: Run, storage: Location) -> tuple[dict[str, int], dict[str, Scores]]:
    task = DistillTask(
        run=distill.run_id,
        staging=str(distill.staging),
        rows=str(distill.location / TRAINING_SET),
        train=settings.train,
        test_rows=settings.test_rows,
    )
    place, progress = placement(settings, storage, cluster_resources()), settings.progress
    with distill.stage("prepare"):
        audit = prepare_student(task, progress)
    with distill.stage("train"):
        train_student(task, place, audit["training_steps"], progress)
    with distill.stage("measure"):
        scores = measure_student(task, place)
    return audit, scores


def _require(scores: Mapping[str, Scores], gate: Gate) -> None:
    for pair in scores.values():
        try:
            require_quality(pair.student, pair.other, gate)
        except MedfilipError as error:
            raise MedfilipError(
                error.code,
                f"{error.message} The student is not published.",
                fix="Train longer or on more sentences; or lower the gate knowingly (gate.valid, gate.grounded or "
                "gate.f1_ratio): the same command then publishes this student without training again.",
            ) from error


def _publish(
    distill: Run, scores: Mapping[str, Scores], counts: Mapping[str, int], rejected: Mapping[str, int]
) -> None:
    metrics = {
        f"{number}_against_{name}": getattr(pair.student, number)
        for name, pair in scores.items()
        for number in _NUMBERS
    }
    if "gold" in scores:
        metrics["f1_of_rules_against_gold"] = scores["gold"].other.f1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        download(distill.staging / MODEL, folder)
        add_metrics(folder, metrics)
        upload(folder, distill.location / MODEL)
        paths = [f"{MODEL}/{file.name}" for file in sorted(folder.iterdir())]
    content = {name: pair.model_dump() for name, pair in scores.items()}
    (distill.location / QUALITY).write_bytes(json.dumps(content, indent=2).encode())
    lines = [file.read_bytes() for file in (distill.staging / LOGS).children()]
    (distill.location / LOG).write_bytes(b"\n".join([*lines, b""]))
    files = [register_file(distill.location, path) for path in (TRAINING_SET, QUALITY, LOG, *paths)]
    distill.publish({}, files=files, metrics=metrics, counts=counts, rejected=rejected)


def _scores_of(location: Location) -> dict[str, Scores]:
    content = json.loads((location / QUALITY).read_bytes())
    return {name: Scores.model_validate(pair) for name, pair in content.items()}


def _outcome(distill: Run, *, already_finished: bool) -> Outcome:
    model = distill.location / MODEL
    steps = (
        f"medfilip extract reports=INGEST_RUN engine=auto vllm.model={model}",
        f"open {model / 'README.md'}",
    )
    return Outcome.of(distill, *steps, already_finished=already_finished)
