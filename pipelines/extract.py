"""Extract: `reports` → `sentences`, `occurrences`, `mentions`, `resolved_findings` and `rejected`.

A million reports hold far fewer distinct sentences: each is extracted once, kept in the findings cache of its
extractor, and carried back to every report it stands in.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from medfilip.core.errors import ErrorCode
from medfilip.core.settings import operational
from medfilip.extraction.engine import OK
from medfilip.findings.ontology import load_ontology
from medfilip.reports.sentences import SPLITTER_VERSION
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard, read_manifest, run_folder
from medfilip.storage.run import Run, open_run
from medfilip.storage.schemas import REJECTED, SENTENCES
from medfilip.storage.shards import decode_shard, write_shard
from pipelines.engines import lexicon_engine, lexicon_plan, pending_file, run_plan
from pipelines.findings_cache import FindingsCache
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.mentions import find_mentions, write_lookup
from pipelines.sentences import split_reports
from pipelines.vllm_plan import VllmSettings, vllm_fingerprint, vllm_plan
from serve.cluster import ray_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray.data import Dataset


class ExtractSettings(JobSettings):
    """Settings of ``medfilip extract``."""

    reports: str = Field(description="run of an ingest job: the folder that holds its manifest.json")
    engine: Literal["lexicon", "vllm"] = Field("lexicon", description="lexicon (rules, CPU) or vllm (local model)")
    max_sentences: int | None = Field(
        None, ge=1, description="extract at most so many new sentences, most frequent first"
    )
    buckets: int = Field(8, ge=1, le=4096, description="ranges of sentence ids, each merged on its own")
    vllm: VllmSettings = Field(VllmSettings(), description="the vLLM engine")
    rows_per_block: int = operational(2000, ge=1, description="sentences in a block: the grain of resuming")


SETTINGS = ExtractSettings


def run(settings: ExtractSettings, *, new_run: bool = False) -> Outcome:
    """Extract the findings of a corpus; see the module's text."""
    source = run_folder(settings.reports)
    reports = read_manifest(source)
    extractor = vllm_fingerprint(settings.vllm) if settings.engine == "vllm" else lexicon_engine().fingerprint
    spec = job_spec(
        "extract",
        # The path of the input and the model are in the fingerprints of input and extractor.
        {name: value for name, value in settings.semantic().items() if name not in ("reports", "vllm")},
        inputs={"reports": reports.fingerprint},
        versions={"extractor": extractor, "splitter": SPLITTER_VERSION, "ontology": load_ontology().fingerprint},
    )
    root = Location.parse(settings.root)
    with open_run(root, spec, new_run=new_run) as extract:
        if extract.manifest is not None:
            return _outcome(extract, already_finished=True)
        with ray_session(settings.ray, settings.ray.address):
            with extract.stage("sentences"):
                shards = split_reports(extract.location, extract.staging, source, reports, settings.buckets)
            cache = FindingsCache(root, extractor)
            with extract.stage(settings.engine):
                counts = _find(extract, settings, cache, shards["sentences"])
            with extract.stage("mentions"):
                settled, rejected = _settled(extract, cache, shards["sentences"])
                rejected = pa.concat_tables([rejected, _failed(extract, settled)])
                write_lookup(extract.staging, settled)
                mentions, found = find_mentions(extract.location, extract.staging, source, reports)
            refused = write_shard(extract.location, "rejected/sentences.parquet", REJECTED, rejected)
            reasons = Counter(rejected["code"].to_pylist())
            datasets = shards | mentions | {"rejected": [refused]}
            extract.publish(datasets, counts={**found, **counts}, rejected=reasons)
    return _outcome(extract)


def _outcome(extract: Run, *, already_finished: bool = False) -> Outcome:
    step = f"medfilip inject findings={extract.location} images=INGEST_RUN"
    return Outcome.of(extract, step, already_finished=already_finished)


def _find(extract: Run, settings: ExtractSettings, cache: FindingsCache, shards: list[Shard]) -> Counter[str]:
    """Extract the sentences the cache lacks and publish them into it."""
    sentences = _read_sentences(extract, shards)
    if not cache.has(extract.run_id):
        pending = sentences.filter(pa.array(~np.isin(sentences["sentence_id"].to_numpy(), cache.known_ids())))
        if settings.max_sentences is not None:
            order = [("count", "descending"), ("sentence_id", "ascending")]
            pending = pending.sort_by(order).slice(0, settings.max_sentences)
        plan: Callable[[Dataset], Dataset] = lexicon_plan
        if settings.engine == "vllm":
            plan = partial(vllm_plan, settings=settings.vllm)
        found = run_plan(pending, extract.staging, plan, rows_per_block=settings.rows_per_block)
        cache.publish(extract.run_id, found)
    settled = int(np.isin(sentences["sentence_id"].to_numpy(), cache.known_ids()).sum())
    extracted = cache.rows_of(extract.run_id)
    return Counter(
        {
            "distinct_sentences": sentences.num_rows,
            "sentence_occurrences": int(pc.sum(sentences["count"]).as_py() or 0),
            "sentences_from_cache": settled - extracted,
            "sentences_extracted": extracted,
        }
    )


def _read_sentences(extract: Run, shards: list[Shard]) -> pa.Table:
    tables = [
        decode_shard((extract.location / shard.path).read_bytes(), extract.location / shard.path, SENTENCES)
        for shard in shards
    ]
    return pa.concat_tables(tables)


def _settled(extract: Run, cache: FindingsCache, shards: list[Shard]) -> tuple[pa.Table, pa.Table]:
    """Return this run's rows of the cache, and a ``rejected`` row for each sentence no engine could settle."""
    ids = _read_sentences(extract, shards)["sentence_id"]
    found = cache.read()
    found = found.filter(pc.is_in(found["sentence_id"], value_set=ids.combine_chunks()))
    failed = found.filter(pc.not_equal(found["status"], OK))
    rows: list[dict[str, object]] = [
        {
            "id": str(row["sentence_id"]),
            "stage": "extract",
            "code": row["status"],
            "message": f"The engine '{row['engine']}' gave no usable answer for this sentence.",
        }
        for row in failed.select(["sentence_id", "status", "engine"]).to_pylist()
    ]
    return found, REJECTED.from_rows(rows)


def _failed(extract: Run, settled: pa.Table) -> pa.Table:
    """Return a ``rejected`` row for each sentence this run gave to an engine that failed on it."""
    file = pending_file(extract.staging)
    if not file.exists():
        return REJECTED.empty()
    known = set(settled["sentence_id"].to_pylist())
    given = pq.read_table(file.path, filesystem=file.filesystem)["sentence_id"].to_pylist()
    message = "The engine failed on this sentence; the next run tries it again."
    return REJECTED.from_rows(
        [
            {"id": str(sentence), "stage": "extract", "code": ErrorCode.ENGINE_FAILED, "message": message}
            for sentence in given
            if sentence not in known
        ]
    )
