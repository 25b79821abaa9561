"""Evaluate extraction: findings of an extract run against a truth, as a table, pages and numbers.

Three kinds of truth are known: a phantom corpus, which says of every statement what it means; the table of the
Indiana University collection, which says what annotators coded for a report; and sentences that a person reviewed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from rich.console import Console
from rich.table import Table

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.agreement import AgreementResult, AtomReader, ReportFindings, evaluate_agreement
from medfilip.evaluation.disagreements import Disagreement, ReportTexts, find_disagreements
from medfilip.evaluation.extraction import ExtractionResult, evaluate_extraction
from medfilip.evaluation.extraction_page import NUMBERS, table_lines, write_errors, write_extraction
from medfilip.evaluation.mesh import NORMAL, NOT_INDEXED, MeshReader
from medfilip.evaluation.profile import load_profile
from medfilip.evaluation.report import show as interval_text
from medfilip.evaluation.risk import RiskCoverage, risk_coverage
from medfilip.extraction.gold import read_gold
from medfilip.findings.ontology import load_ontology
from medfilip.phantom.corpus import read_truth
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, read_manifest, run_folder
from medfilip.storage.run import Run, open_run, register_file
from medfilip.storage.shards import read_dataset
from pipelines.job import JobSettings, Outcome, job_spec

AS_STATED = "as stated"
_LABELS = "openi_gold14"
Rows = dict[str, list[dict[str, Any]]]


class EvaluateExtractionSettings(JobSettings):
    """Settings of ``medfilip evaluate extraction``."""

    findings: str = Field(description="run of an extract job")
    truth: str = Field(
        description="corpus folder of a phantom run, an Open-I table with report_id and mesh, or a gold file (.jsonl)"
    )
    profile: str | None = Field(None, description="show the numbers under an export profile as well: openi")
    reports: str | None = Field(None, description="run of the ingest job: its texts are quoted in errors.html")
    errors: bool = Field(False, description="write errors.html, which quotes reports; --errors sets it")
    max_errors: int = Field(500, ge=1, description="disagreements shown there, the most confident first")
    resamples: int = Field(1000, ge=10, description="bootstrap resamples behind an interval")
    seed: int = Field(0, ge=0, description="of the bootstrap")


SETTINGS = EvaluateExtractionSettings


def run(settings: EvaluateExtractionSettings, *, new_run: bool = False) -> Outcome:
    """Compare an extract run with a truth; see the module's text."""
    if settings.errors and not settings.reports:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The page of errors quotes reports, and the setting 'reports' does not say where they are.",
            fix="Give reports=INGEST_RUN.",
        )
    findings = run_folder(settings.findings)
    manifest = read_manifest(findings)
    truth = Location.parse(settings.truth)
    inputs = {"findings": manifest.fingerprint, "truth": _fingerprint(truth)}
    config = {
        name: value for name, value in settings.semantic().items() if name not in ("findings", "truth", "reports")
    }
    spec = job_spec("evaluate_extraction", config, inputs, {"ontology": load_ontology().fingerprint})
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as evaluate:
        if evaluate.manifest is not None:
            return _outcome(evaluate, already_finished=True)
        facts = {"findings": str(findings), "truth": str(truth), **manifest.versions}
        if truth.is_dir():
            _against_statements(evaluate, settings, findings, manifest, facts)
        elif truth.name.endswith(".jsonl"):
            _against_gold(evaluate, settings, findings, manifest, facts)
        else:
            _against_annotators(evaluate, settings, findings, manifest, facts)
    return _outcome(evaluate)


def show(outcome: Outcome) -> None:
    """Print the numbers with their intervals: one column for each way of comparing, or one row for each slot."""
    numbers = json.loads((Location.parse(outcome.location) / NUMBERS).read_bytes())
    table = Table(box=None, padding=(0, 2, 0, 1))
    if numbers["agreement"]:
        results = {name: AgreementResult.model_validate(item) for name, item in numbers["agreement"].items()}
        for title in ("agreement with annotators", *results):
            table.add_column(title, no_wrap=True)
        for line in table_lines(results):
            table.add_row(*line)
    else:
        for title in ("slot", "precision", "recall", "F1"):
            table.add_column(title, no_wrap=True)
        for name, row in ExtractionResult.model_validate(numbers["statements"]).slots.items():
            table.add_row(name, interval_text(row.precision), interval_text(row.recall), interval_text(row.f1))
    Console(highlight=False).print(table)


def _outcome(evaluate: Run, *, already_finished: bool = False) -> Outcome:
    return Outcome.of(evaluate, f"open {evaluate.location / 'extraction.html'}", already_finished=already_finished)


def _fingerprint(truth: Location) -> str:
    file = truth / "truth.jsonl" if truth.is_dir() else truth
    return sha256_bytes(file.read_bytes())


def _against_statements(
    evaluate: Run, settings: EvaluateExtractionSettings, findings: Location, manifest: Manifest, facts: dict[str, str]
) -> None:
    """Compare mentions with what a phantom corpus says of each statement."""
    truth = list(read_truth(Path(settings.truth)))
    expected = [
        {"report_id": item.report_id, **finding.model_dump(mode="json")} for item in truth for finding in item.findings
    ]
    known = {item.report_id for item in truth}
    mentions = [m for m in read_dataset(findings, manifest, "mentions").to_pylist() if m["report_id"] in known]
    _judge(evaluate, settings, facts, mentions, expected, sorted(known))


def _against_gold(
    evaluate: Run, settings: EvaluateExtractionSettings, findings: Location, manifest: Manifest, facts: dict[str, str]
) -> None:
    """Compare the findings of sentences with what a person made of them; a sentence stands for a report."""
    gold = {item.sentence_id: item for item in read_gold(Location.parse(settings.truth))}
    read = set(read_dataset(findings, manifest, "sentences", ["sentence_id"])["sentence_id"].to_pylist())
    judged = sorted(gold.keys() & read)
    if not judged:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            f"None of the {len(gold)} sentences of the gold file stands in the run.",
            fix="Give the gold of a review of these reports.",
        )
    expected = [
        {"report_id": str(key), **finding.model_dump(mode="json")} for key in judged for finding in gold[key].findings
    ]
    wanted, first = set(judged), dict[int, str]()
    mentions = []
    for row in read_dataset(findings, manifest, "mentions").to_pylist():
        # The same sentence of another report says the same again.
        if row["sentence_id"] in wanted and first.setdefault(row["sentence_id"], row["report_id"]) == row["report_id"]:
            mentions.append({**row, "report_id": str(row["sentence_id"])})
    _judge(
        evaluate, settings, {**facts, "gold sentences": str(len(judged))}, mentions, expected, list(map(str, judged))
    )


def _judge(
    evaluate: Run,
    settings: EvaluateExtractionSettings,
    facts: Mapping[str, str],
    mentions: Sequence[Mapping[str, Any]],
    expected: Sequence[Mapping[str, Any]],
    reports: Sequence[str],
) -> None:
    """Measure mentions of texts by what they state, and publish it."""
    statements = evaluate_extraction(mentions, expected, reports, resamples=settings.resamples, seed=settings.seed)
    stated = {(row["report_id"], row["category"], row["certainty"]) for row in expected}
    judged = [m for m in mentions if m["confidence"] is not None]
    right = [(m["report_id"], m["category"], m["certainty"]) in stated for m in judged]
    risk = risk_coverage([m["confidence"] for m in judged], right)
    metrics = {f"{name}_f1": row.f1.value for name, row in statements.slots.items() if row.f1 is not None}
    _publish(evaluate, facts, {}, statements, risk, metrics, [], settings)


def _against_annotators(
    evaluate: Run, settings: EvaluateExtractionSettings, findings: Location, manifest: Manifest, facts: dict[str, str]
) -> None:
    """Compare resolved findings with the annotation of a report."""
    ontology = load_ontology()
    resolved = _by_report(read_dataset(findings, manifest, "resolved_findings"))
    ways = {AS_STATED: resolved}
    if settings.profile:
        profile = load_profile(settings.profile)
        ways[f"profile {settings.profile}"] = {key: list(profile.apply(rows)) for key, rows in resolved.items()}  # type: ignore[arg-type]
    truth = _annotations(Location.parse(settings.truth))
    atoms, mesh = AtomReader(ontology), MeshReader(ontology)
    agreement: dict[str, AgreementResult] = {}
    compared: dict[str, list[ReportFindings]] = {}
    for name, rows in ways.items():
        compared[name] = [_report(entry, rows.get(entry["report_id"], []), atoms, mesh) for entry in truth]
        agreement[name] = evaluate_agreement(compared[name], ontology, resamples=settings.resamples, seed=settings.seed)
    disagreements = _disagreements(settings, findings, manifest, compared[AS_STATED]) if settings.errors else []
    metrics = {name: item.value for name, item in agreement[AS_STATED].metrics.items()}
    risk = _risk(compared[AS_STATED], resolved, atoms)
    _publish(evaluate, facts, agreement, None, risk, metrics, disagreements, settings)


def _by_report(table: pa.Table) -> Rows:
    found: Rows = {}
    for row in table.to_pylist():
        found.setdefault(row["report_id"], []).append(row)
    return found


def _annotations(file: Location) -> list[dict[str, Any]]:
    """Read report_id, mesh and, where given, the NIH-14 labels; reports that were never indexed are left out."""
    with file.filesystem.open_input_file(file.path) as stream:
        parquet = pq.ParquetFile(stream)
        names = parquet.schema_arrow.names
        missing = [name for name in ("report_id", "mesh") if name not in names]
        if missing:
            raise MedfilipError(
                ErrorCode.COLUMN_MISSING,
                f"{file} lacks the columns {', '.join(missing)} of an annotated table.",
                fix="Give the table of the Indiana University collection, or a phantom corpus folder.",
            )
        table = parquet.read(columns=[name for name in ("report_id", "mesh", _LABELS) if name in names])
    return [row for row in table.to_pylist() if NOT_INDEXED not in (row["mesh"] or ())]


def _report(
    entry: Mapping[str, Any], rows: list[dict[str, Any]], atoms: AtomReader, mesh: MeshReader
) -> ReportFindings:
    annotations = entry["mesh"] or []
    labels = entry.get(_LABELS)
    return ReportFindings(
        entry["report_id"],
        atoms.read(row for annotation in annotations for row in mesh.read(annotation)),
        atoms.read(rows),
        list(annotations) == [NORMAL],
        None if labels is None else frozenset(label for label in labels if label != NORMAL),
    )


def _risk(reports: list[ReportFindings], resolved: Rows, atoms: AtomReader) -> RiskCoverage | None:
    """Judge each stated finding by whether its category is annotated in the report."""
    confidences: list[float] = []
    right: list[bool] = []
    for report in reports:
        annotated = {atom.category for atom in report.annotated}
        for row in resolved.get(report.report_id, []):
            names = {atom.category for atom in atoms.read([row])}
            if names and row["confidence"] is not None:
                confidences.append(row["confidence"])
                right.append(bool(names & annotated))
    return risk_coverage(confidences, right)


def _disagreements(
    settings: EvaluateExtractionSettings, findings: Location, manifest: Manifest, reports: list[ReportFindings]
) -> list[Disagreement]:
    assert settings.reports is not None
    ingest = run_folder(settings.reports)
    texts = read_dataset(ingest, read_manifest(ingest), "reports", ["report_id", "text"])
    text_of = dict(zip(texts["report_id"].to_pylist(), texts["text"].to_pylist(), strict=True))
    mentions = _by_report(read_dataset(findings, manifest, "mentions"))
    sentences: dict[str, list[tuple[int, int, tuple[str, ...]]]] = {}
    for row in read_dataset(findings, manifest, "occurrences").to_pylist():
        sentences.setdefault(row["report_id"], []).append((row["start"], row["end"], ()))
    rolled = {name: (*entry.crosswalk.rollup_to, name) for name, entry in load_ontology().categories.items()}

    def found() -> Iterator[Disagreement]:
        for report in reports:
            key = report.report_id
            given = ReportTexts(text_of.get(key, ""), sorted(sentences.get(key, [])), mentions.get(key, []))
            yield from find_disagreements(report, given, rolled)

    return list(found())


def _publish(
    evaluate: Run,
    facts: Mapping[str, str],
    agreement: Mapping[str, AgreementResult],
    statements: ExtractionResult | None,
    risk: RiskCoverage | None,
    metrics: dict[str, float],
    disagreements: list[Disagreement],
    settings: EvaluateExtractionSettings,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_extraction(folder, facts=facts, agreement=agreement, statements=statements, risk=risk)
        if settings.errors:
            written.append(write_errors(folder, disagreements, limit=settings.max_errors))
        for path in written:
            (evaluate.location / path.name).write_bytes(path.read_bytes())
        files = [register_file(evaluate.location, path.name) for path in written]
    if risk is not None:
        metrics["calibration_error"] = risk.calibration_error
    counts = {"disagreements": len(disagreements)} if settings.errors else {}
    evaluate.publish({}, files=files, metrics=metrics, counts=counts)
