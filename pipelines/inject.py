"""Inject: `resolved_findings` + `images` → `pairs` and `texts`, with the visual attributes of each finding written in.

A pair holds no pixels: it points at the row of ``images`` it belongs to and carries its study's findings as integers
with the ids of their text variants.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import Field
from rich.console import Console

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import hash64
from medfilip.core.settings import operational
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import DEFAULT_VARIANTS, FINDING_CONTENT, InjectionMode, training_texts
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard, read_manifest, run_folder
from medfilip.storage.run import Run, RunSpec, open_run
from medfilip.storage.schemas import IMAGES, PAIRS, TEXTS
from medfilip.storage.shards import decode_shard, read_shard, write_shard
from pipelines.drafts import Drafted, DraftRun, choose_requests, count_requests, knowledge_extractor, told_phrases
from pipelines.engines import Extractor
from pipelines.finding_index import FindingIndex, index_findings
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.llm_settings import DraftSettings, OpenaiSettings, VllmSettings
from pipelines.progress import ProgressPrinter
from pipelines.raw_sentences import sentences_of, write_sentences
from pipelines.runtime import map_parts, no_progress
from pipelines.sentences import NumberedShard, numbered_shards
from serve.cluster import ray_session

_PAIR_COLUMNS = ["image_id", "study_id", "patient_id", "view", "split"]
_DRAFT_TOKENS = 768


Attributes = Literal["conditioned", "category", "none", "llm", "sentences"]


class InjectSettings(JobSettings):
    """Settings of ``medfilip inject``."""

    findings: str = Field(description="run of an extract job")
    images: str = Field(description="run of an ingest job that read images")
    attributes: Attributes = Field(
        "conditioned",
        description="conditioned (by the finding's own severity, site and pattern), category (one description a "
        "category, as its authors did), none, llm (conditioned, and what a model adds), or sentences (the report's own "
        "instead of texts of findings: for ablations)",
    )
    variants: int = Field(DEFAULT_VARIANTS, ge=1, le=64, description="texts written for one finding at most")
    llm: DraftSettings = Field(DraftSettings(), description="with attributes=llm: what a model is asked")
    vllm: VllmSettings = Field(
        VllmSettings(max_model_len=4096, max_output_tokens=_DRAFT_TOKENS), description="the vLLM engine"
    )
    openai: OpenaiSettings = Field(
        OpenaiSettings(max_output_tokens=_DRAFT_TOKENS), description="the endpoint of the openai engine"
    )
    allow_remote: bool = operational(
        False, description="may names of findings be sent to openai.base_url? (--allow-remote)"
    )

    quiet: bool = operational(False, description="say nothing before and while the job runs")

    @property
    def mode(self) -> InjectionMode:
        """What the texts of a finding are written with; a model only adds to the conditioned ones."""
        if self.attributes == "sentences":
            return "none"
        return "conditioned" if self.attributes == "llm" else self.attributes


SETTINGS = InjectSettings


def run(settings: InjectSettings, *, new_run: bool = False) -> Outcome:
    """Write the training pairs of a corpus; see the module's text."""
    findings, images = (_opened(place) for place in (settings.findings, settings.images))
    extractor = _extractor(settings)
    root = Location.parse(settings.root)
    with open_run(root, _spec(settings, findings[1], images[1], extractor), new_run=new_run) as inject:
        if inject.manifest is not None:
            return _outcome(inject, settings, already_finished=True)
        with ray_session(settings.ray, settings.ray.address):
            _InjectJob(settings, inject, root, findings, images, extractor).work()
    return _outcome(inject, settings)


def _opened(place: str) -> tuple[Location, Manifest]:
    folder = run_folder(place)
    return folder, read_manifest(folder)


def _extractor(settings: InjectSettings) -> Extractor | None:
    if settings.attributes != "llm":
        return None
    return knowledge_extractor(settings.llm, settings.vllm, settings.openai, allow_remote=settings.allow_remote)


def _spec(settings: InjectSettings, findings: Manifest, images: Manifest, extractor: Extractor | None) -> RunSpec:
    config: dict[str, Any] = {"attributes": settings.attributes, "variants": settings.variants}
    versions = {
        "ontology": load_ontology().fingerprint,
        "knowledge": load_knowledge().fingerprint,
        "injection": settings.mode,
    }
    if extractor is not None:
        config["llm"] = settings.llm.semantic()
        versions["model"] = extractor.fingerprint
    return job_spec(
        "inject",
        config,
        inputs={"findings": findings.fingerprint, "images": images.fingerprint},
        versions=versions,
    )


def _outcome(inject: Run, settings: InjectSettings, *, already_finished: bool = False) -> Outcome:
    assert inject.manifest is not None
    steps = [f"medfilip pretrain pairs={inject.location} images={settings.images}"]
    steps += [f"medfilip knowledge lint {inject.location}/{file.path}" for file in inject.manifest.files]
    return Outcome.of(inject, *steps, already_finished=already_finished)


@dataclass(frozen=True)
class _InjectJob:
    """The job between its opened run and its manifest."""

    settings: InjectSettings
    inject: Run
    root: Location
    findings: tuple[Location, Manifest]
    images: tuple[Location, Manifest]
    extractor: Extractor | None

    def work(self) -> None:
        """Do everything and publish the run."""
        inject, staging = self.inject, self.inject.staging
        with inject.stage("index"):
            selected = count_requests if self.extractor else None
            index, counted = index_findings(staging, self.images, self.findings, selected=selected)
        drafted = None
        if self.extractor is not None:
            with inject.stage(self.extractor.name):
                drafted = self._draft(self.extractor, counted)
        if self.settings.attributes == "sentences":
            write_sentences(staging, self.findings)
        with inject.stage("pairs"):
            work = partial(
                _pair_shard,
                run=inject.location,
                staging=staging,
                images=self.images[0],
                index=index,
                mode=self.settings.mode,
                variants=self.settings.variants,
                told=drafted is not None,
                raw=self.settings.attributes == "sentences",
            )
            records = map_parts(staging, "pairs", work, numbered_shards(self.images[1], "images"))
            merge = partial(_merge_texts, run=inject.location, staging=staging)
            (texts,) = map_parts(staging, "texts", merge, [len(records)])
        self._publish(records, Shard(**texts["shard"]), drafted)

    def _draft(self, extractor: Extractor, counted: list[dict[str, Any]]) -> Drafted:
        settings = self.settings
        model = settings.openai.model if settings.llm.engine == "openai" else settings.vllm.model
        requests = choose_requests(counted, settings.llm, load_ontology())
        asks = DraftRun(extractor, model, self.root, self.inject.location, self.inject.staging)
        pending = asks.choose(requests)
        if not settings.quiet:
            told = f"{len(requests['draft']):,} entries to draft, {len(requests['describe']):,} findings to describe"
            Console(highlight=False).print(f"{extractor.name}: {told}; {pending:,} of these requests are new")
        return asks.work(requests, no_progress if settings.quiet else ProgressPrinter().stage)

    def _publish(self, records: list[dict[str, Any]], texts: Shard, drafted: Drafted | None) -> None:
        counts: Counter[str] = Counter()
        for record in records:
            counts.update(record["counts"])
        if not counts["images_with_findings"]:
            raise MedfilipError(
                ErrorCode.NO_TRAINING_PAIRS,
                f"None of the {counts['pairs']} images belongs to a study with findings.",
                fix="Ingest reports and images of one corpus in one run, so that they share study ids.",
            )
        datasets = {"pairs": [Shard(**record["shard"]) for record in records], "texts": [texts]}
        if drafted is None:
            self.inject.publish(datasets, counts=counts)
            return
        self.inject.publish(
            {**datasets, "rejected": drafted.rejected},
            counts={**counts, **drafted.counts},
            rejected=drafted.reasons,
            files=drafted.files,
        )


def _pair_shard(
    numbered: NumberedShard,
    *,
    run: Location,
    staging: Location,
    images: Location,
    index: FindingIndex,
    mode: InjectionMode,
    variants: int,
    told: bool,
    raw: bool,
) -> dict[str, Any]:
    number, shard = numbered
    table = read_shard(images, shard, IMAGES, _PAIR_COLUMNS)
    by_study = index.findings_of(number, table["study_id"])
    ontology, knowledge = load_ontology(), load_knowledge()
    codebook = Codebook.of(ontology)
    texts: dict[int, dict[str, Any]] = {}
    coded: dict[str, list[dict[str, Any]]] = {study: [] for study in by_study}
    ids_of: dict[str, list[int]] = {}  # findings repeat themselves, and their texts are the slow part
    unknown = 0
    for study, row in ((study, row) for study, rows in by_study.items() for row in rows):
        code = codebook.encode(row)
        if code is None:
            unknown += 1
            continue
        content = repr([row[slot] for slot in FINDING_CONTENT] + (row["mention_ids"] if raw else []))
        if content not in ids_of:
            phrases = told_phrases(staging, row) if told else ()
            written = sentences_of(staging, row)[:variants] if raw else []
            written = written or training_texts(row, knowledge, ontology, mode=mode, variants=variants, told=phrases)
            ids_of[content] = [hash64(text) for text in written]
            about = {"category": row["category"], "certainty": row["certainty"]}
            for text_id, text in zip(ids_of[content], written, strict=True):
                texts[text_id] = {"text_id": text_id, "text": text, **about}
        coded[study].append({**code, "text_ids": ids_of[content]})
    pairs = [
        {**row, "image_shard": number, "image_row": position, "findings": coded.get(row["study_id"], [])}
        for position, row in enumerate(table.to_pylist())
    ]
    name = f"part-{number:05d}.parquet"
    ordered = [texts[text_id] for text_id in sorted(texts)]
    write_shard(staging / "texts", name, TEXTS, TEXTS.from_rows(ordered))
    return {
        "shard": write_shard(run, f"pairs/{name}", PAIRS, PAIRS.from_rows(pairs)).model_dump(),
        "counts": {
            "pairs": len(pairs),
            "images_with_findings": sum(bool(pair["findings"]) for pair in pairs),
            "findings_outside_the_ontology": unknown,
        },
    }


def _merge_texts(parts: int, *, run: Location, staging: Location) -> dict[str, Any]:
    merged: dict[int, dict[str, Any]] = {}
    for number in range(parts):
        file = staging / f"texts/part-{number:05d}.parquet"
        merged.update({row["text_id"]: row for row in decode_shard(file.read_bytes(), file, TEXTS).to_pylist()})
    rows = [merged[text_id] for text_id in sorted(merged)]
    return {"shard": write_shard(run, "texts/part-00000.parquet", TEXTS, TEXTS.from_rows(rows)).model_dump()}
