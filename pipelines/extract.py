"""Extract: `reports` → `sentences`, `occurrences`, `mentions`, `resolved_findings`, `rejected` and `review_queue`.

A million reports hold far fewer distinct sentences: each is extracted once, kept in the findings cache of its
extractor, and carried back to every report it stands in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import pyarrow.compute as pc
from pydantic import Field
from rich.console import Console

from medfilip.core.fingerprint import fingerprint
from medfilip.core.settings import operational
from medfilip.extraction.prompt import load_prompt, prompt_version
from medfilip.extraction.routing import ROUTING_VERSION
from medfilip.findings.ontology import load_ontology
from medfilip.reports.sentences import SPLITTER_VERSION
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, Manifest, Shard, read_manifest, run_folder
from medfilip.storage.run import RUN_FILE, Run, RunSpec, open_run
from medfilip.storage.schemas import SENTENCES
from medfilip.storage.shards import read_shard
from pipelines.engine_run import EngineRun, retried_codes
from pipelines.engines import Extractor, PlanOptions, lexicon_extractor, openai_extractor
from pipelines.findings_cache import RETRIED, FindingsCache
from pipelines.forecast import Forecast, forecast, forecast_table
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.llm_settings import AutoSettings, OpenaiSettings, VllmSettings
from pipelines.mentions import find_mentions
from pipelines.progress import ProgressPrinter
from pipelines.runtime import Progress, no_progress
from pipelines.sentences import default_buckets, split_reports
from pipelines.settle import Audit, routed_to_model, settle
from serve.cluster import ray_session

if TYPE_CHECKING:
    from pipelines.engine_run import Wanted


class ExtractSettings(JobSettings):
    """Settings of ``medfilip extract``."""

    reports: str = Field(description="run of an ingest job: the folder that holds its manifest.json")
    engine: Literal["lexicon", "vllm", "openai", "auto"] = Field(
        "lexicon",
        description="lexicon (rules, CPU), vllm (local model), openai (any endpoint; needs --allow-remote), or auto "
        "(rules, and a model for what they doubt)",
    )
    max_sentences: int | None = Field(
        None, ge=1, description="an engine reads at most so many new sentences, most frequent first"
    )
    buckets: int = Field(
        0, ge=0, le=4096, description="ranges of sentence ids, each merged on its own; 0: by the number of reports"
    )
    vllm: VllmSettings = Field(VllmSettings(), description="the vLLM engine")
    openai: OpenaiSettings = Field(OpenaiSettings(), description="the endpoint of the openai engine")
    auto: AutoSettings = Field(AutoSettings(), description="the auto engine")
    rows_per_block: int = operational(
        0, ge=0, description="sentences in a block, the grain of resuming; 0: 20000 for rules, 2000 for a model"
    )
    allow_remote: bool = operational(False, description="may sentences be sent to openai.base_url? (--allow-remote)")
    quiet: bool = operational(False, description="say nothing before and while the job runs")
    estimate: bool = operational(False, description="say what the job would take, and stop (--estimate)")
    retry_rejected: bool = operational(
        False, description="read again only sentences whose engine failed, in a new run (--retry-rejected)"
    )
    include_quarantined: bool = operational(
        False, description="with retry_rejected: also those that killed an engine twice (--include-quarantined)"
    )


SETTINGS = ExtractSettings


def run(settings: ExtractSettings, *, new_run: bool = False) -> Outcome | None:
    """Extract the findings of a corpus; see the module's text. With ``estimate``, there is no outcome."""
    source = run_folder(settings.reports)
    reports = read_manifest(source)
    extractors = _extractors(settings)
    spec = _spec(settings, reports, extractors)
    root = Location.parse(settings.root)
    new_run = new_run or (settings.retry_rejected and _has_finished(root, spec))
    with open_run(root, spec, new_run=new_run) as extract:
        if extract.manifest is not None:
            return _outcome(extract, already_finished=True)
        with ray_session(settings.ray, settings.ray.address):
            job = _ExtractJob(settings, extract, source, reports, extractors, root)
            if not job.work():
                return None
    return _outcome(extract)


def _extractors(settings: ExtractSettings) -> list[Extractor]:
    """Return the engines of a run: the first reads everything, the second what the first leaves to it."""
    kind = settings.auto.model if settings.engine == "auto" else settings.engine
    first = [lexicon_extractor()] if settings.engine in ("auto", "lexicon") else []
    if kind == "vllm":
        from pipelines.vllm_plan import vllm_extractor

        return [*first, vllm_extractor(_with_model(settings))]
    if kind == "openai":
        return [*first, openai_extractor(settings.openai, allow_remote=settings.allow_remote)]
    return first


def _with_model(settings: ExtractSettings) -> VllmSettings:
    """Return the settings of vLLM; where they name no model, the student of the package reads."""
    if settings.vllm.model:
        return settings.vllm
    from medfilip.distillation.shipped import shipped_student

    if not settings.quiet:
        Console(highlight=False).print(
            "vllm.model is not set: the small extractor of the package reads. It was trained on synthetic sentences "
            "alone; for research use only."
        )
    return settings.vllm.model_copy(update={"model": str(shipped_student())})


def _model_counts(settings: ExtractSettings) -> bool:
    """Whether a model's findings count where the rules doubt.

    A student was taught by the rules: on the Open-I reports it reads what they doubt worse than they do, whatever part
    of it is taken, while its disagreement tells where to look.
    """
    if settings.auto.doubtful != "auto":
        return settings.auto.doubtful == "model"
    return settings.auto.model != "vllm" or not (
        settings.vllm.model == "" or load_prompt(prompt_version(settings.vllm.model)).copying
    )


def _spec(settings: ExtractSettings, reports: Manifest, extractors: list[Extractor]) -> RunSpec:
    # The path of the input and the models are in the fingerprints of input and extractors.
    config = {name: value for name, value in settings.semantic().items() if name not in _IN_FINGERPRINTS}
    versions = {"splitter": SPLITTER_VERSION, "ontology": load_ontology().fingerprint}
    versions |= _extractor_versions(settings, extractors)
    return job_spec("extract", config, inputs={"reports": reports.fingerprint}, versions=versions)


def _extractor_versions(settings: ExtractSettings, extractors: list[Extractor]) -> dict[str, str]:
    """Return the fingerprint of what decides the findings, and of its parts where there are some."""
    if settings.engine != "auto":
        return {"extractor": extractors[0].fingerprint}
    rules, model = (extractor.fingerprint for extractor in extractors)
    counted = [] if _model_counts(settings) else ["rules count"]
    routing = [ROUTING_VERSION, settings.auto.audit_share, settings.auto.seed, *counted]
    return {"rules": rules, "model": model, "extractor": fingerprint([rules, model, routing])}


# A second or two of rules, a few minutes of a model: less would be spent on writing files, more lost in a crash.
_RULE_ROWS, _MODEL_ROWS = 20_000, 2_000
_IN_FINGERPRINTS = ("reports", "vllm", "openai", "auto")


def _has_finished(root: Location, spec: RunSpec) -> bool:
    """Whether the newest run of these settings has been published: then trying again means another run."""
    folder = root / f"{spec.job}-{spec.fingerprint}"
    earlier = [child for child in folder.children() if (child / RUN_FILE).exists()]
    return bool(earlier) and (earlier[-1] / MANIFEST_NAME).exists()


def _outcome(extract: Run, *, already_finished: bool = False) -> Outcome:
    assert extract.manifest is not None
    steps = [f"medfilip inject findings={extract.location} images=INGEST_RUN"]
    queue = extract.manifest.datasets.get("review_queue")
    if queue is not None and queue.rows:
        steps.append(f"medfilip review {extract.location}")
    if RETRIED.intersection(extract.manifest.rejected):
        steps.append("the same command with --retry-rejected reads only the sentences whose engine failed")
    if "engine_quarantined" in extract.manifest.rejected:
        steps.append("--retry-rejected --include-quarantined reads those too that killed an engine twice")
    return Outcome.of(extract, *steps, already_finished=already_finished)


@dataclass(frozen=True)
class _ExtractJob:
    """The job between its opened run and its manifest."""

    settings: ExtractSettings
    extract: Run
    source: Location
    reports: Manifest
    extractors: list[Extractor]
    root: Location

    def work(self) -> bool:
        """Do everything, or with ``estimate`` only say what it takes; returns whether the run was published."""
        settings, extract, progress = self.settings, self.extract, self._progress
        total = self.reports.dataset("reports").rows
        buckets = settings.buckets or default_buckets(total)
        with extract.stage("sentences"):
            shards = split_reports(extract.location, extract.staging, self.source, self.reports, buckets, progress)
        runs = [self._engine_run(extractor, buckets) for extractor in self.extractors]
        audit = Audit(settings.auto.audit_share, settings.auto.seed)
        counts: Counter[str] = Counter()
        for index, (run, extractor) in enumerate(zip(runs, self.extractors, strict=True)):
            wanted = partial(routed_to_model, rules=runs[0], audit=audit) if index else None
            told = self._announce(run, extractor, shards["sentences"], wanted)
            if settings.estimate and (index or len(runs) == 1):
                return False
            with extract.stage(extractor.name):
                counts.update(self._execute(run, extractor, told, "model_" if index else ""))
        with extract.stage("settle"):
            model = runs[1] if len(runs) > 1 else None
            settled = settle(
                shards["sentences"], runs[0], model, audit, extract.staging, progress,
                model_counts=_model_counts(settings),
            )  # fmt: skip
        with extract.stage("mentions"):
            mentions, found = find_mentions(
                extract.location,
                extract.staging,
                self.source,
                self.reports,
                shards["occurrences"],
                buckets,
                progress,
            )
        extract.publish(
            shards | mentions | settled.shards,
            counts={**found, **counts, **settled.counts, **self._sentence_counts(shards["sentences"])},
            rejected=settled.rejected,
            metrics=_metrics(counts, settled.counts, sum(shard.rows for shard in shards["sentences"])),
        )
        return True

    @property
    def _progress(self) -> Progress:
        return no_progress if self.settings.quiet else ProgressPrinter().stage

    def _engine_run(self, extractor: Extractor, buckets: int) -> EngineRun:
        cache = FindingsCache(self.root, extractor.fingerprint)
        run_id, folder = self.extract.run_id, self.extract.location
        return EngineRun(extractor.name, cache, run_id, folder, self.extract.staging / extractor.name, buckets)

    def _announce(
        self, run: EngineRun, extractor: Extractor, sentences: list[Shard], wanted: Wanted | None
    ) -> Forecast:
        """Fix what the engine reads, and say what that takes."""
        settings = self.settings
        retry = retried_codes(quarantined=settings.include_quarantined) if settings.retry_rejected else frozenset()
        counts = run.choose(sentences, wanted=wanted, retry=retry, at_most=settings.max_sentences)
        if settings.quiet and not settings.estimate:
            return Forecast(extractor.name, counts["wanted"], counts["known"], counts["pending"])
        told = forecast(run, extractor, counts, always=settings.estimate)
        distinct, reports = sum(shard.rows for shard in sentences), self.reports.dataset("reports").rows
        title = None if wanted else f"{reports:,} reports hold {distinct:,} distinct sentences"
        Console(highlight=False).print(forecast_table([told], title))
        return told

    def _execute(self, run: EngineRun, extractor: Extractor, told: Forecast, prefix: str) -> Counter[str]:
        rows, make = self.settings.rows_per_block, extractor.plan
        if make is None:
            assert extractor.read is not None
            spent = run.execute_parts(extractor.read, rows_per_part=rows or _RULE_ROWS, progress=self._progress)
        else:
            options = PlanOptions(run.staging, budget_factor=2 if self.settings.retry_rejected else 1)
            spent = run.execute(
                lambda dataset: make(dataset, options), rows_per_block=rows or _MODEL_ROWS, progress=self._progress
            )
        counts = Counter(
            {
                f"{prefix}sentences_from_cache": told.known,
                f"{prefix}sentences_extracted": run.cache.rows_of(run.run_id),
            }
        )
        if any(spent[name] for name in ("input_tokens", "output_tokens")):
            counts.update({name: spent[name] for name in ("input_tokens", "output_tokens", "cached_tokens")})
            counts["model_findings"] = spent["findings"]
        return counts

    def _sentence_counts(self, sentences: list[Shard]) -> dict[str, int]:
        occurrences = 0
        for shard in sentences:
            table = read_shard(self.extract.location, shard, SENTENCES, ["count"])
            occurrences += int(pc.sum(table["count"]).as_py() or 0)
        distinct = sum(shard.rows for shard in sentences)
        return {"distinct_sentences": distinct, "sentence_occurrences": occurrences}


def _metrics(counts: Counter[str], settled: Counter[str], distinct: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if "sentences_doubtful" in settled:
        metrics["share_doubtful"] = settled["sentences_doubtful"] / max(1, distinct)
        metrics["share_audited"] = settled["sentences_audited"] / max(1, distinct)
    if settled["audit_answered"]:
        metrics["audit_agreement"] = settled["audit_agreed"] / settled["audit_answered"]
    if counts["model_findings"]:
        metrics["output_tokens_per_finding"] = counts["output_tokens"] / counts["model_findings"]
    return metrics
