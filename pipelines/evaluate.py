"""Evaluate: how well findings are extracted and diagnosed zero-shot, with intervals, as one page and one JSON file.

Diagnosis is measured on the test split, with thresholds chosen on the validation split. The truth is what the reports
state, or, for phantoms, what was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.diagnosis import DiagnosisResult, evaluate_diagnosis
from medfilip.evaluation.embedded import PARTS, Options, Part, Unit
from medfilip.evaluation.examples import Example
from medfilip.evaluation.extraction import ExtractionResult, evaluate_extraction
from medfilip.evaluation.familiarity import evaluate_familiarity, fingerprint_of, read_strangers
from medfilip.evaluation.grounding import Pointed, evaluate_grounding
from medfilip.evaluation.provenance import RunFacts, run_of
from medfilip.evaluation.study_truth import Corpus, study_truth
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.phantom.corpus import PhantomTruth
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard, read_manifest, run_folder
from medfilip.storage.run import Run, open_run
from medfilip.storage.shards import read_dataset
from pipelines.embedding import embed_images
from pipelines.evaluation_files import TRUTH, headline, write_files
from pipelines.grounding import drawn_boxes, point_all
from pipelines.job import JobSettings, Outcome, job_spec


class EvaluateSettings(JobSettings):
    """Settings of ``medfilip evaluate``."""

    checkpoint: str = Field(description="run of a pretrain job, or a checkpoint folder")
    images: str = Field(description="run of an ingest job with reports and images")
    findings: str = Field(description="run of an extract job on those reports")
    phantom_truth: str | None = Field(None, description="corpus folder of a phantom run: the truth that was drawn")
    unit: Unit = Field(
        "image", description="what counts once: image, or study, whose images are pooled as in training by study"
    )
    labels: tuple[str, ...] = Field((), description="categories to diagnose; empty: those with enough images")
    min_images: int = Field(3, ge=1, description="images with and without a category it takes to be chosen")
    exclusive: bool = Field(False, description="labels exclude each other: measure the choice of one of them too")
    parts: tuple[Part, ...] = Field(
        PARTS,
        description=f"what is measured beside zero-shot diagnosis: {', '.join(PARTS)}",
    )
    examples: int | None = Field(
        None, ge=0, le=100, description="test images with boxes shown on the page, with heat maps; empty: 9 of phantoms"
    )
    unfamiliar: str | None = Field(
        None,
        description="folder of images that are no chest radiographs: how well the model knows that it does not know",
    )
    resamples: int = Field(1000, ge=10, description="bootstrap resamples behind an interval")
    seed: int = Field(0, ge=0, description="of the bootstrap")


SETTINGS = EvaluateSettings
DRAWN_EXAMPLES = 9


def run(settings: EvaluateSettings, *, new_run: bool = False) -> Outcome:
    """Evaluate extraction and diagnosis; see the module's text."""
    images, findings = run_folder(settings.images), run_folder(settings.findings)
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint))
    corpus = Corpus.of(settings.phantom_truth)
    truth = corpus.drawn
    images_manifest, findings_manifest = read_manifest(images), read_manifest(findings)
    inputs = {
        "checkpoint": sha256_bytes((checkpoint / "hashes.json").read_bytes()),
        "images": images_manifest.fingerprint,
        "findings": findings_manifest.fingerprint,
        "truth": corpus.fingerprint,
        "unfamiliar": fingerprint_of(settings.unfamiliar),
    }
    places = ("checkpoint", "images", "findings", "phantom_truth", "unfamiliar")
    config = {name: value for name, value in settings.semantic().items() if name not in places}
    spec = job_spec("evaluate", config, inputs, {"ontology": load_ontology().fingerprint})
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as evaluate:
        if evaluate.manifest is not None:
            return _outcome(evaluate, already_finished=True)
        embedded = embed_images(evaluate, images, checkpoint, ("validation", "test"), settings.ray, unit=settings.unit)
        pointed, examples = _pointed(settings, evaluate, truth, images, checkpoint)
        with evaluate.stage("score"):
            diagnoser = Diagnoser.load(local_copy(checkpoint))
            known = study_truth(findings, corpus, images)
            options = Options(
                labels=settings.labels, min_images=settings.min_images, exclusive=settings.exclusive,
                parts=settings.parts, resamples=settings.resamples, seed=settings.seed,
            )  # fmt: skip
            diagnosis = evaluate_diagnosis(diagnoser, embedded, known, load_knowledge(), options)
            more: dict[str, object] = {
                "grounding": evaluate_grounding(pointed, "gradient", resamples=settings.resamples, seed=settings.seed)
            }
            if settings.unfamiliar:
                strangers = read_strangers(Path(settings.unfamiliar), diagnoser)
                more["familiarity"] = evaluate_familiarity(diagnoser, embedded.of_split("test"), strangers, options)
            if "heat_maps" in settings.parts and not pointed:
                more["not_measured"] = {**diagnosis.not_measured, "heat_maps": "no boxes of findings are known"}
            diagnosis = diagnosis.model_copy(update=more)
            extraction = _extraction(settings, findings, findings_manifest, truth)
        facts = {
            "model": diagnoser.fingerprint,
            **{f"{name} fingerprint": value[:16] for name, value in inputs.items()},
        }
        if settings.unit == "study":
            facts["unit"] = "a study, whose images are pooled"
        facts[TRUTH] = "drawn by the phantom generator" if truth else "stated in the reports"
        trained = run_of(checkpoint)
        runs = [RunFacts.of(images_manifest), RunFacts.of(findings_manifest), *([trained] if trained else [])]
        files = write_files(
            evaluate, diagnoser, diagnosis, facts, title="Evaluation", runs=runs,
            synthetic=diagnoser.versions.synthetic, extraction=extraction, examples=examples,
        )  # fmt: skip
        _publish(evaluate, diagnosis, extraction, files)
    return _outcome(evaluate)


def _outcome(evaluate: Run, *, already_finished: bool = False) -> Outcome:
    return Outcome.of(evaluate, f"open {evaluate.location / 'report.html'}", already_finished=already_finished)


def _pointed(
    settings: EvaluateSettings, evaluate: Run, truth: Sequence[PhantomTruth], images: Location, checkpoint: Location
) -> tuple[list[Pointed], tuple[Example, ...]]:
    boxes = drawn_boxes(truth, images) if "heat_maps" in settings.parts else {}
    if not boxes:
        return [], ()
    # Whoever has phantom truth has phantoms: their pixels may stand in a page.
    count = DRAWN_EXAMPLES if settings.examples is None else settings.examples
    return point_all(evaluate, images, checkpoint, boxes, settings.ray, examples=count)


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
    evaluate: Run, diagnosis: DiagnosisResult, extraction: ExtractionResult | None, files: Sequence[Shard]
) -> None:
    metrics = headline(diagnosis)
    if extraction is not None and (found := extraction.slots["certainty"].f1) is not None:
        metrics["extraction_f1_with_certainty"] = found.value
    zero_shot = diagnosis.zero_shot
    counted = "test_studies" if diagnosis.unit == "study" else "test_images"
    counts = {counted: zero_shot.images, "test_patients": zero_shot.patients, "labels": len(zero_shot.labels)}
    evaluate.publish({}, files=files, metrics=metrics, counts=counts)
