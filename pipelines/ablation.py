"""Ablation: train with and without each part of the method, on the same data, seeds and steps, and compare.

Each arm is a run of `inject` and of `pretrain` in the same root, so that a killed ablation goes on with the arms that
are left, and an arm that was trained before is not trained again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import operational
from medfilip.evaluation.ablation import COMPARED, AblationResult, Arm, Compared, arms, compare
from medfilip.evaluation.ablation_page import write_ablation
from medfilip.evaluation.embedded import EmbeddedImages
from medfilip.evaluation.metrics import Floats
from medfilip.evaluation.study_truth import Corpus, study_truth
from medfilip.evaluation.truth import Truth
from medfilip.evaluation.zero_shot import macro_values
from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import ABSENT, PRESENT
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest, run_folder
from medfilip.storage.run import Run, open_run, register_file
from medfilip.training.settings import TrainSettings
from pipelines import inject, pretrain
from pipelines.embedding import embed_images
from pipelines.job import JobSettings, Outcome, job_spec


class AblationSettings(JobSettings):
    """Settings of ``medfilip evaluate ablation``."""

    images: str = Field(description="run of an ingest job with reports and images")
    findings: str = Field(description="run of an extract job on those reports")
    phantom_truth: str | None = Field(None, description="corpus folder of a phantom run: the truth that was drawn")
    arms: Literal["factors", "grid"] = Field(
        "factors", description="factors: the default, and one change at a time; grid: all combinations (64)"
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="each arm is trained with each of them")
    train: TrainSettings = Field(TrainSettings(), description="the training that all arms share")
    labels: tuple[str, ...] = Field((), description="categories to diagnose; empty: those with enough test images")
    min_images: int = Field(8, ge=1, description="test images with and without a category it takes to be chosen")
    resamples: int = Field(1000, ge=10, description="bootstrap resamples behind an interval")
    workers: int = operational(1, ge=1, le=4096, description="training processes of an arm")
    quiet: bool = operational(False, description="show no progress")


SETTINGS = AblationSettings


def run(settings: AblationSettings, *, new_run: bool = False) -> Outcome:
    """Train and compare all arms; see the module's text."""
    images, findings = run_folder(settings.images), run_folder(settings.findings)
    corpus = Corpus.of(settings.phantom_truth)
    load_ontology().check_categories(settings.labels, "labels")
    inputs = {
        "images": read_manifest(images).fingerprint,
        "findings": read_manifest(findings).fingerprint,
        "truth": corpus.fingerprint,
    }
    places = ("images", "findings", "phantom_truth")
    config = {name: value for name, value in settings.semantic().items() if name not in places}
    spec = job_spec("ablation", config, inputs, {"ontology": load_ontology().fingerprint})
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as ablation:
        if ablation.manifest is not None:
            return _outcome(ablation, already_finished=True)
        result = _Ablation(settings, ablation, images, study_truth(findings, corpus, images)).work()
        with tempfile.TemporaryDirectory() as folder:
            written = write_ablation(Path(folder), result, synthetic=_synthetic(images))
            for path in written:
                (ablation.location / path.name).write_bytes(path.read_bytes())
            files = [register_file(ablation.location, path.name) for path in written]
        default = result.arms[0]
        metrics = {f"default_{name}": found.value for name, found in default.metrics.items()}
        counts = {"arms": len(result.arms), "models": len(result.arms) * len(settings.seeds), "images": result.images}
        ablation.publish({}, files=files, metrics=metrics, counts=counts)
    return _outcome(ablation)


def _outcome(ablation: Run, *, already_finished: bool = False) -> Outcome:
    return Outcome.of(ablation, f"open {ablation.location / 'ablation.html'}", already_finished=already_finished)


def _synthetic(images: Location) -> bool:
    return read_manifest(images).counts.get("synthetic_images", 0) > 0


class _Ablation:
    """The job between its opened run and its manifest."""

    def __init__(self, settings: AblationSettings, ablation: Run, images: Location, truth: Truth) -> None:
        self.settings, self.ablation, self.images, self.truth = settings, ablation, images, truth

    def work(self) -> AblationResult:
        """Train and score every arm with every seed."""
        chosen: tuple[str, ...] = ()
        values: dict[str, list[dict[Compared, Floats]]] = {}
        models: dict[str, list[str]] = {}
        for arm in arms(self.settings.arms):
            for seed in self.settings.seeds:
                checkpoint = find_checkpoint(Location.parse(self._train(arm, seed)))
                phase = "encode_" + "_".join([*arm.__dict__.values(), str(seed)])
                embedded = embed_images(
                    self.ablation, self.images, checkpoint, ("test",), self.settings.ray, phase=phase
                )
                chosen = chosen or self._labels(embedded)
                diagnoser = Diagnoser.load(local_copy(checkpoint))
                values.setdefault(arm.name, []).append(self._values(diagnoser, embedded, chosen))
                models.setdefault(arm.name, []).append(diagnoser.fingerprint)
        return AblationResult(
            labels=chosen,
            images=len(embedded),
            patients=len(set(embedded.column("patient_id"))),
            seeds=self.settings.seeds,
            resamples=self.settings.resamples,
            arms=compare(values, models),
        )

    def _train(self, arm: Arm, seed: int) -> str:
        """Return the place of an arm's model, trained now or before."""
        shared = {"root": self.settings.root, "ray": self.settings.ray, "quiet": self.settings.quiet}
        pairs = inject.run(
            inject.InjectSettings(
                findings=self.settings.findings, images=self.settings.images, attributes=arm.attributes, **shared
            )
        )
        similarity = self.settings.train.similarity.model_copy(update={"mode": arm.similarity})
        changed = {"similarity": similarity, "objective": arm.objective, "seed": seed}
        train = self.settings.train.model_copy(update=changed)
        return pretrain.run(
            pretrain.PretrainSettings(
                pairs=pairs.location, images=self.settings.images, train=train, workers=self.settings.workers,
                validate_every=0, **shared,
            )
        ).location  # fmt: skip

    def _labels(self, embedded: EmbeddedImages) -> tuple[str, ...]:
        """Choose what is diagnosed: categories that were trained on, with enough test images."""
        candidates = self.settings.labels or self.truth.categories
        candidates = tuple(name for name in candidates if name not in self.settings.train.unseen)
        truth_NL = self._truth(embedded, candidates)
        fewest_L = np.minimum((truth_NL == PRESENT).sum(axis=0), (truth_NL == ABSENT).sum(axis=0))
        least = 1 if self.settings.labels else self.settings.min_images
        chosen = tuple(name for name, count in zip(candidates, fewest_L, strict=True) if count >= least)
        if not chosen:
            raise MedfilipError(
                ErrorCode.NOT_ENOUGH_DATA,
                f"No category has {least} test images with it and {least} without.",
                fix="Ingest more studies, or lower min_images.",
            )
        return chosen

    def _values(self, diagnoser: Diagnoser, embedded: EmbeddedImages, labels: Sequence[str]) -> dict[Compared, Floats]:
        scores = diagnoser.score(embedded.image_ND, diagnoser.encode_labels(labels))
        truth_NL, patients = self._truth(embedded, labels), embedded.column("patient_id")
        return {
            metric: macro_values(scores, truth_NL, patients, metric, resamples=self.settings.resamples)
            for metric in COMPARED
        }

    def _truth(self, embedded: EmbeddedImages, labels: Sequence[str]) -> np.ndarray:
        return self.truth.states(embedded.column("study_id"), embedded.column("view"), labels)
