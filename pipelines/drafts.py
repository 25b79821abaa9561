"""Knowledge from a language model: which requests a run has, who answers them, and what of the answers is published.

One request for a category without an entry, one for each distinct finding (category, severity, side, sites, patterns)
however often it stands in the corpus. Requests go to the engines of extraction as sentences do, with their resume and
their cache: what a model has answered under one fingerprint of model, instructions and knowledge is not asked again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from medfilip.core.errors import ErrorCode
from medfilip.core.ids import hash64
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.drafting import describe_request, draft_request, load_instructions, request_kind
from medfilip.knowledge.drafts import OK, drafted_entry, write_drafts
from medfilip.knowledge.knowledge import Entry, load_knowledge
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard
from medfilip.storage.run import register_file
from medfilip.storage.schemas import KNOWLEDGE_REPLIES, REJECTED, SENTENCES
from medfilip.storage.shards import write_shard
from pipelines.engine_run import EngineRun
from pipelines.engines import Extractor, PlanOptions, openai_extractor
from pipelines.findings_cache import FindingsCache
from pipelines.llm_settings import DraftSettings, OpenaiSettings, VllmSettings
from pipelines.llm_task import KNOWLEDGE
from pipelines.runtime import Progress

if TYPE_CHECKING:
    from medfilip.findings.ontology import Ontology

DRAFTS_FILE = "drafts.yaml"
_TOLD_FILE = "told.json"
_ROWS_PER_BLOCK = 500
_ASKED_AGAIN = frozenset({ErrorCode.ENGINE_FAILED})
"""What another run tries again: an engine that was not there, not a reply that was no good."""


@dataclass(frozen=True)
class Drafted:
    """What a model's answers came to.

    Attributes
    ----------
    rejected
        Of dataset ``rejected``: requests without a usable answer.
    files
        The drafted entries, if there are any.
    counts
        Requests, answers used, phrases dropped by reason, tokens.
    reasons
        Reason code → requests without a usable answer.
    """

    rejected: list[Shard]
    files: list[Shard]
    counts: Counter[str]
    reasons: Counter[str]


def knowledge_extractor(
    settings: DraftSettings, vllm: VllmSettings, openai: OpenaiSettings, *, allow_remote: bool
) -> Extractor:
    """Return the engine that answers requests; see `openai_extractor` for what a remote one needs."""
    if settings.engine == "openai":
        return openai_extractor(openai, allow_remote=allow_remote, task=KNOWLEDGE)
    from pipelines.vllm_plan import vllm_extractor

    return vllm_extractor(vllm, KNOWLEDGE)


def count_requests(findings: pa.Table) -> dict[str, Any]:
    """Count what could be asked about some rows of ``resolved_findings``.

    Returns
    -------
    dict
        ``unknown``: category → findings, of categories without an entry; ``described``: request → findings.
    """
    ontology, knowledge = load_ontology(), load_knowledge()
    unknown: Counter[str] = Counter()
    described: Counter[str] = Counter()
    for row in findings.select(["category", "certainty", *_LOOKED_AT]).to_pylist():
        category = row["category"]
        if knowledge.entry(category) is None and category not in knowledge.without_entry:
            unknown[category] += 1
        request = describe_request(row, ontology)
        if request is not None:
            described[request] += 1
    return {"unknown": dict(unknown), "described": dict(described)}


_LOOKED_AT = ("severity", "size", "laterality", "sites", "patterns")


def choose_requests(
    records: Iterable[Mapping[str, Mapping[str, int]]], settings: DraftSettings, ontology: Ontology
) -> dict[str, dict[str, int]]:
    """Add up what parts have counted and return the requests to make: kind → request → how many findings it is about.

    The most frequent ones come first, up to the limits of the settings; equally frequent ones by name.
    """
    unknown: Counter[str] = Counter()
    described: Counter[str] = Counter()
    for record in records:
        unknown.update(record["unknown"])
        described.update(record["described"])
    drafts: Counter[str] = Counter()
    for category, count in unknown.items():
        # Names that differ only in what must not be shown are one name.
        request = draft_request(category, ontology)
        if request is not None:
            drafts[request] += count
    frequent = {request: count for request, count in drafts.items() if count >= settings.min_count}
    return {
        "draft": _first(frequent, settings.drafts),
        "describe": _first(described, settings.texts),
    }


def _first(counted: Mapping[str, int], limit: int) -> dict[str, int]:
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:limit])


@dataclass(frozen=True)
class DraftRun:
    """A model's share of an inject run.

    Attributes
    ----------
    extractor
        The engine, for the task `pipelines.llm_task.KNOWLEDGE`.
    model
        Its name, as it is published with drafts.
    root
        Where runs lie, and beside them what engines have answered.
    run
        Folder of the inject run; its name is the run's id.
    staging
        Of the inject run.
    """

    extractor: Extractor
    model: str
    root: Location
    run: Location
    staging: Location

    def choose(self, requests: Mapping[str, Mapping[str, int]]) -> int:
        """Fix what is asked, once for the run, and return how much of it no run has asked before."""
        counted = _together(requests)
        engine = self._engine()
        return engine.choose([self._write_requests(engine.run, counted)], retry=_ASKED_AGAIN)["pending"]

    def work(self, requests: Mapping[str, Mapping[str, int]], progress: Progress | None = None) -> Drafted:
        """Ask what `choose` has found to be new, and write what came of it."""
        engine, counted, make = self._engine(), _together(requests), self.extractor.plan
        assert make is not None
        options = PlanOptions(engine.staging)
        spent = engine.execute(
            lambda dataset: make(dataset, options), rows_per_block=_ROWS_PER_BLOCK, progress=progress
        )
        replies = self._replies(engine, counted)
        counts = Counter({f"{kind}_requests": len(asked) for kind, asked in requests.items()})
        counts["requests_from_cache"] = len(counted) - engine.cache.rows_of(engine.run_id)
        counts.update({name: spent[name] for name in ("input_tokens", "output_tokens", "cached_tokens")})
        return self._write(replies, counts)

    def _engine(self) -> EngineRun:
        staging = self.staging / "model"
        cache = FindingsCache(self.root, self.extractor.fingerprint, KNOWLEDGE_REPLIES)
        return EngineRun(self.extractor.name, cache, self.run.name, staging, staging, 1)

    def _write_requests(self, folder: Location, counted: Mapping[str, int]) -> Shard:
        rows = [
            {"sentence_id": hash64(request), "text": request, "section_group": request_kind(request), "count": count}
            for request, count in counted.items()
        ]
        table = SENTENCES.from_rows([dict(row) for row in rows]).sort_by("sentence_id")
        return write_shard(folder, "requests/part-00000.parquet", SENTENCES, table)

    def _replies(self, engine: EngineRun, counted: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """Return request → what became of it."""
        asked = {hash64(request): request for request in counted}
        table = engine.cache.read_range(0, 1, ["reply", "dropped"])
        mine = table.filter(pa.array(np.isin(table["sentence_id"].to_numpy(), np.array(list(asked), np.int64))))
        return {asked[row["sentence_id"]]: row for row in mine.to_pylist()}

    def _write(self, replies: Mapping[str, dict[str, Any]], counts: Counter[str]) -> Drafted:
        refused = [
            {
                "id": str(row["sentence_id"]),
                "stage": "inject",
                "code": row["status"],
                "message": "The engine gave no usable answer about this category or finding.",
            }
            for row in replies.values()
            if row["status"] != OK
        ]
        usable = {request: row["reply"] for request, row in replies.items() if row["status"] == OK}
        counts.update(f"dropped_{reason}" for row in replies.values() for reason in row["dropped"])
        entries = [
            drafted_entry(category_of_draft(request, load_ontology()), reply)
            for request, reply in usable.items()
            if request_kind(request) == "draft"
        ]
        told = {r: json.loads(reply)["phrases"] for r, reply in usable.items() if request_kind(r) == "describe"}
        (self.staging / _TOLD_FILE).write_bytes(json.dumps(told, sort_keys=True).encode())
        counts.update({"entries_drafted": len(entries), "findings_described": len(told)})
        path = "rejected/part-00000.parquet"
        shard = write_shard(self.run, path, REJECTED, REJECTED.from_rows([dict(row) for row in refused]))
        reasons = Counter(str(row["code"]) for row in refused)
        return Drafted([shard], self._publish(entries), counts, reasons)

    def _publish(self, entries: list[Entry]) -> list[Shard]:
        if not entries:
            return []
        ordered = sorted(entries, key=lambda entry: entry.category)
        text = write_drafts(ordered, Path(self.model).name, load_instructions())
        (self.run / DRAFTS_FILE).write_bytes(text.encode())
        return [register_file(self.run, DRAFTS_FILE)]


def _together(requests: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {request: count for kind in requests.values() for request, count in kind.items()}


def category_of_draft(request: str, ontology: Ontology) -> str:
    """Return the category that a request for an entry is about."""
    name = str(json.loads(request)["draft"])
    known = next((item.id for item in ontology.categories.values() if item.label == name), None)
    return known or f"other:{name}"


def told_phrases(staging: Location, row: Mapping[str, object]) -> tuple[str, ...]:
    """Return the image-specific phrases about a finding; none if nothing usable was answered about it."""
    request = describe_request(row, load_ontology())
    return _told(str(staging / _TOLD_FILE)).get(request, ()) if request is not None else ()


@lru_cache(maxsize=2)
def _told(uri: str) -> dict[str, tuple[str, ...]]:
    return {request: tuple(texts) for request, texts in json.loads(Location.parse(uri).read_bytes()).items()}
