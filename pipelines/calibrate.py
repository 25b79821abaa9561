"""Calibrate: fit probabilities, operating points and familiarity of a model to a hospital's own validation studies.

The weights stay as they are, so the model's fingerprint does too; what changes is ``calibration.json`` and
``familiarity.safetensors`` of the checkpoint that is written. Test studies are never looked at.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.embedded import EmbeddedImages, Unit
from medfilip.evaluation.study_truth import Corpus, study_truth
from medfilip.evaluation.truth import Truth
from medfilip.findings.ontology import load_ontology
from medfilip.model.calibration import Calibration, Method, Rule, fit_calibration
from medfilip.model.checkpoint import load_checkpoint, write_checkpoint
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.familiarity import Familiarity
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest, run_folder
from medfilip.storage.run import Run, open_run, register_file
from pipelines.embedding import embed_images
from pipelines.job import JobSettings, Outcome, job_spec


class CalibrateSettings(JobSettings):
    """Settings of ``medfilip calibrate``."""

    checkpoint: str = Field(description="run of a pretrain job, or a checkpoint folder")
    images: str = Field(description="run of an ingest job with reports and images; its validation split is used")
    findings: str = Field(description="run of an extract job on those reports")
    phantom_truth: str | None = Field(None, description="corpus folder of a phantom run: the truth that was drawn")
    unit: Unit = Field("image", description="what counts once: image, or study, whose images are pooled")
    labels: tuple[str, ...] = Field((), description="categories to calibrate; empty: all that anything is known about")
    method: Method = Field(
        "auto",
        description="curves: platt, temperature, isotonic, or auto: for each category the best on held-out folds",
    )
    rule: Rule = Field("f1", description="operating points: f1, youden, or sensitivity (the highest threshold with it)")
    sensitivity: float = Field(0.9, gt=0, le=1, description="what rule=sensitivity must reach")


SETTINGS = CalibrateSettings


def run(settings: CalibrateSettings, *, new_run: bool = False) -> Outcome:
    """Calibrate a checkpoint; see the module's text."""
    images, findings = run_folder(settings.images), run_folder(settings.findings)
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint))
    corpus = Corpus.of(settings.phantom_truth)
    ontology = load_ontology()
    ontology.check_categories(settings.labels, "labels")
    inputs = {
        "checkpoint": sha256_bytes((checkpoint / "hashes.json").read_bytes()),
        "images": read_manifest(images).fingerprint,
        "findings": read_manifest(findings).fingerprint,
        "truth": corpus.fingerprint,
    }
    places = ("checkpoint", "images", "findings", "phantom_truth")
    config = {name: value for name, value in settings.semantic().items() if name not in places}
    spec = job_spec("calibrate", config, inputs, {"ontology": ontology.fingerprint})
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as calibrate:
        if calibrate.manifest is not None:
            return _outcome(calibrate, settings, already_finished=True)
        embedded = embed_images(calibrate, images, checkpoint, ("validation",), settings.ray, unit=settings.unit)
        with calibrate.stage("fit"):
            folder = local_copy(checkpoint)
            calibration = _fit(settings, Diagnoser.load(folder), embedded, study_truth(findings, corpus, images))
            assert embedded.texture_NF is not None
            familiarity = Familiarity.fit(embedded.texture_NF)
            _publish(calibrate, folder, calibration, familiarity, images=len(embedded))
    return _outcome(calibrate, settings)


def _fit(settings: CalibrateSettings, diagnoser: Diagnoser, embedded: EmbeddedImages, truth: Truth) -> Calibration:
    labels = settings.labels or truth.categories
    truth_NL = truth.states(embedded.column("study_id"), embedded.column("view"), labels)
    margins_NL = diagnoser.score(embedded.image_ND, diagnoser.encode_labels(labels)).margins
    calibration = fit_calibration(
        {label: margins_NL[:, at] for at, label in enumerate(labels)},
        {label: truth_NL[:, at] for at, label in enumerate(labels)},
        method=settings.method, rule=settings.rule, sensitivity=settings.sensitivity,
    )  # fmt: skip
    if not calibration.categories:
        fewest = np.minimum((truth_NL == 1).sum(axis=0), (truth_NL == 0).sum(axis=0)).max(initial=0)
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            f"No category can be calibrated on {len(embedded)} validation images: at most {fewest} of them have a "
            "category, or lack it, and 8 of each are needed with scores that point the right way.",
            fix="Give a run of ingest with more validation studies.",
        )
    return calibration


def _publish(
    calibrate: Run, folder: Path, calibration: Calibration, familiarity: Familiarity | None, *, images: int
) -> None:
    model = load_checkpoint(folder)
    with tempfile.TemporaryDirectory(prefix="medfilip-calibrated-") as name:
        written = Path(name)
        write_checkpoint(replace(model, calibration=calibration, familiarity=familiarity), written)
        paths = [f"checkpoint/{path.name}" for path in sorted(written.iterdir())]
        for path in paths:
            (calibrate.location / path).write_bytes((written / Path(path).name).read_bytes())
    counts = {
        "images": images,
        "categories": len(calibration.categories),
        "operating_points": len(calibration.operating_points),
        "familiarity": int(familiarity is not None),
    }
    calibrate.publish({}, files=[register_file(calibrate.location, path) for path in paths], counts=counts)


def _outcome(calibrate: Run, settings: CalibrateSettings, *, already_finished: bool = False) -> Outcome:
    place = calibrate.location / "checkpoint"
    steps = (
        f"medfilip evaluate checkpoint={place} images={settings.images} findings={settings.findings}",
        f"medfilip serve {place}",
    )
    return Outcome.of(calibrate, *steps, already_finished=already_finished)
