"""The demo: every stage once, for real, on synthetic studies, from nothing to an answering endpoint.

It runs the same jobs with the same settings a user would type, on one local cluster, and stops all it started. Run
again, it finds its finished runs and only asks the endpoint anew.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from medfilip.core.settings import load_settings
from pipelines.console import as_typed
from pipelines.job import JOBS, Outcome
from pipelines.runtime import RaySettings
from serve.cluster import ray_session

if TYPE_CHECKING:
    from medfilip.answers import Diagnosis
    from medfilip.client import Client

STUDIES = 200
CATEGORIES = ("pleural_effusion", "consolidation", "cardiomegaly", "pneumothorax", "edema")
PREVALENCE = 0.36
"""Of each: a model for minutes of a laptop, which sees 64 pixels, learns a few large things that reports deny too."""
EPOCHS = 80
REPORT_STEPS = 80
"""Steps between checkpoints: each is evaluated beside the training, on the same few cores."""
DIAGNOSED = 4


@dataclass(frozen=True)
class Stage:
    """A line of the summary."""

    name: str
    seconds: float
    result: str


@dataclass
class Demo:
    """State of a demo on its way."""

    root: Path
    console: Console
    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[list[str]]:
        """Show a stage while it runs, and its time and result when it is done; append the result to the list."""
        result: list[str] = []
        start = time.monotonic()
        with self.console.status(f"{name}: {what}"):
            yield result
        stage = Stage(name, time.monotonic() - start, result[0])
        self.stages.append(stage)
        self.console.print(f"[bold]{stage.name:9}[/] {stage.seconds:6.1f} s   {stage.result}")

    def run(self, name: str, *overrides: str) -> Outcome:
        """Run a job as a part of a stage."""
        module = JOBS[name].load()
        settings = load_settings(module.SETTINGS, name, overrides=[*overrides, f"root={self.root / 'runs'}"])
        outcome: Outcome | None = module.run(settings, new_run=False)
        assert outcome is not None
        return outcome

    def job(self, name: str, what: str, describe: Callable[[Outcome], str], *overrides: str) -> Outcome:
        """Run a job as ``medfilip <name> <overrides>`` would, as a stage of its own."""
        with self.stage(name, what) as result:
            outcome = self.run(name, *overrides)
            done = " (done before)" if outcome.already_finished else ""
            result.append(describe(outcome) + done)
        return outcome


def run_demo(root: Path) -> None:
    """Walk the whole way and sum up on one screen."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    demo = Demo(root.absolute(), Console(highlight=False))
    demo.console.print(f"The whole way on {STUDIES} synthetic studies; everything is written below {demo.root}.\n")
    with _library_messages(demo.root / "messages.log"):
        with ray_session(RaySettings()):
            corpus, evaluated, trained, ingested = _prepare_and_train(demo)
        answers = _serve(demo, corpus, trained, ingested)
    _sum_up(demo, evaluated, answers)


@contextmanager
def _library_messages(file: Path) -> Iterator[None]:
    """Keep what Ray, vLLM and their native parts write to standard error in a file, off the screen."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    screen = os.dup(2)
    with file.open("wb") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)


def _prepare_and_train(demo: Demo) -> tuple[Path, Outcome, Outcome, Outcome]:
    phantom = demo.job(
        "phantom", "drawing studies and writing their reports", _describe_phantom, f"count={STUDIES}", "seed=0",
        f"categories=[{','.join(CATEGORIES)}]", f"prevalence={PREVALENCE}", "styles=[digital]",
    )  # fmt: skip
    corpus = Path(phantom.location) / "corpus"
    ingested = demo.job(
        "ingest", "reading reports and DICOM", _describe_ingest,
        f"reports={corpus}", f"images={corpus}/images", "keep_report_ids=true", "quiet=true",
    )  # fmt: skip
    reports = f"reports={ingested.location}"
    extracted = demo.job("extract", "rules on Ray Data", _describe_extract, reports, "quiet=true")
    _read_the_rest(demo, reports, corpus, extracted)
    findings, images = f"findings={extracted.location}", f"images={ingested.location}"
    injected = demo.job("inject", "writing training pairs", _describe_inject, findings, images)
    trained = demo.job(
        "pretrain", f"{EPOCHS} epochs on 2 Ray Train workers", _describe_pretrain,
        f"pairs={injected.location}", images, "workers=2", f"train.epochs={EPOCHS}",
        f"train.report_steps={REPORT_STEPS}",
    )  # fmt: skip
    evaluated = demo.job(
        "evaluate", "held-out patients", _describe_evaluate,
        f"checkpoint={trained.location}", images, findings, f"phantom_truth={corpus}",
    )  # fmt: skip
    return corpus, evaluated, trained, ingested


def _read_the_rest(demo: Demo, reports: str, corpus: Path, extracted: Outcome) -> None:
    if importlib.util.find_spec("vllm") is None:
        demo.console.print("[bold]vllm[/]           –   not installed on this machine: rules extract everything")
        return
    with demo.stage("vllm", "a small language model reads what rules leave") as result:
        read = demo.run("extract", reports, "engine=auto", "auto.doubtful=model", "quiet=true")
        truth = f"truth={corpus}"
        scores = [
            demo.run("evaluate_extraction", f"findings={run.location}", truth, "resamples=20").manifest.metrics
            for run in (extracted, read)
        ]
        counts, seconds = read.manifest.counts, read.manifest.seconds["vllm"]
        doubtful, audited = counts["sentences_doubtful"], counts["sentences_audited"]
        without, with_model = (metrics["certainty_f1"] for metrics in scores)
        result.append(
            f"{doubtful} doubtful, {audited} other sentences in {seconds:.0f} s, start included; "
            f"F1 {with_model:.3f}, rules {without:.3f}"
        )


def _describe_phantom(outcome: Outcome) -> str:
    return f"{outcome.manifest.counts['studies']} studies: DICOM, report and exact truth"


def _describe_ingest(outcome: Outcome) -> str:
    counts = outcome.manifest.counts
    test = counts.get("images_test", 0)
    return f"{counts['reports']} reports and {counts['images']} images, de-identified; {test} images held out"


def _describe_extract(outcome: Outcome) -> str:
    counts, datasets = outcome.manifest.counts, outcome.manifest.datasets
    return (
        f"{counts['distinct_sentences']} distinct of {counts['sentence_occurrences']} sentences "
        f"→ {datasets['resolved_findings'].rows} findings"
    )


def _describe_inject(outcome: Outcome) -> str:
    datasets = outcome.manifest.datasets
    return f"{datasets['pairs'].rows} pairs with {datasets['texts'].rows} attribute texts"


def _describe_pretrain(outcome: Outcome) -> str:
    metrics = outcome.manifest.metrics
    return f"loss {metrics['loss']:.3f}, on validation {metrics.get('validation_loss', float('nan')):.3f}"


def _describe_evaluate(outcome: Outcome) -> str:
    metrics = outcome.manifest.metrics
    return (
        f"zero-shot AUROC {metrics['zero_shot_macro_pos_auroc']:.2f} (POS) {metrics['zero_shot_macro_pnc_auroc']:.2f} "
        f"(PNC), extraction F1 {metrics['extraction_f1_with_certainty']:.2f}"
    )


def _serve(demo: Demo, corpus: Path, trained: Outcome, ingested: Outcome) -> list[tuple[str, Diagnosis, set[str]]]:
    """Start the endpoint, ask it about held-out studies over HTTP, and stop it."""
    from medfilip.client import Client
    from medfilip.phantom.corpus import read_truth
    from medfilip.storage.location import Location
    from medfilip.storage.shards import read_dataset
    from serve.local import running_endpoint

    reports = read_dataset(Location.parse(ingested.location), ingested.manifest, "reports", ["report_id", "split"])
    held_out = {row["report_id"] for row in reports.to_pylist() if row["split"] == "test"}
    truth = [item for item in read_truth(corpus) if item.report_id in held_out][:DIAGNOSED]
    answers = []
    with (
        demo.stage("serve", "starting the endpoint and diagnosing over HTTP") as result,
        running_endpoint(f"{trained.location}/checkpoint") as endpoint,
        Client(endpoint.url, endpoint.api_key) as client,
    ):
        for item in truth:
            labels = list(item.study_truth)
            image = corpus / "images" / f"{item.report_id}.dcm"
            diagnosis = client.diagnose(image, labels, heat_maps="present")
            _write_answer(demo.root / "answers" / item.report_id, diagnosis, client, image, labels)
            present = {name for name, status in item.study_truth.items() if status.status == "present"}
            answers.append((item.report_id, diagnosis, present))
        result.append(f"{len(answers)} held-out DICOM files, each answered as JSON, FHIR and DICOM (SR, heat maps)")
    return answers


def _write_answer(folder: Path, diagnosis: Diagnosis, client: Client, image: Path, labels: list[str]) -> None:
    """Keep an answer in every form, and each heat map as a picture that needs no viewer of DICOM."""
    from PIL import Image
    from pydicom import dcmread

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "diagnosis.json").write_text(diagnosis.model_dump_json(indent=2))
    (folder / "diagnosis.fhir.json").write_bytes(client.diagnose_as("fhir", image, labels)[0])
    report, *maps = client.diagnose_as("objects", image, labels, heat_maps="present")
    (folder / "report.sr.dcm").write_bytes(report)
    mapped = [item.label for item in diagnosis.findings if item.heat_map is not None and item.heat_map.peak > 0]
    for label, capture, region in zip(mapped, maps[::2], maps[1::2], strict=True):
        (folder / f"{label}.map.dcm").write_bytes(capture)
        (folder / f"{label}.region.seg.dcm").write_bytes(region)
        Image.fromarray(dcmread(BytesIO(capture)).pixel_array).save(folder / f"{label}.map.png")


def _sum_up(demo: Demo, evaluated: Outcome, answers: list[tuple[str, Diagnosis, set[str]]]) -> None:
    table = Table(title="\nProbabilities from the endpoint ([bold green]* drawn in the image[/])", box=None)
    table.title_justify = "left"
    table.add_column("study")
    for finding in answers[0][1].findings:
        table.add_column(finding.label.replace("_", " "), justify="right")
    for report_id, diagnosis, present in answers:
        cells = [
            f"[bold green]{finding.probability:.2f}*[/]" if finding.label in present else f"{finding.probability:.2f} "
            for finding in diagnosis.findings
        ]
        table.add_row(report_id, *cells)
    demo.console.print(table)
    total = sum(stage.seconds for stage in demo.stages)
    lines = (
        f"All of it took {total:.0f} s. Trained on synthetic data: for research use only, never on patients.\n",
        f"look at   {os.path.relpath(evaluated.location)}/report.html",
        f"answers   {os.path.relpath(demo.root)}/answers   (JSON, FHIR, DICOM SR, heat maps)",
        f"serve it  {as_typed(f'medfilip serve {os.path.relpath(demo.root)}')}",
        f"your own  {as_typed('medfilip ingest reports=FOLDER images=FOLDER')}   (--help shows the way)",
    )
    demo.console.print(Panel("\n".join(lines), title="demo", title_align="left", expand=False), soft_wrap=True)
