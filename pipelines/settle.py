"""Phase 2½ of extraction: which finding counts for each sentence, range by range, where all workers can look it up.

Also what this says of the run: how many sentences each engine settled, what was refused and why, how many tokens were
spent, and where rules and model disagree.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medfilip.extraction.engine import OK
from medfilip.extraction.routing import AUDIT, DOUBT, disagreements, in_audit, unsettled
from medfilip.findings.ontology import load_ontology
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard
from medfilip.storage.schemas import FINDING, REJECTED, REVIEW_QUEUE, SENTENCES
from medfilip.storage.shards import corrupt, read_shard, write_shard
from pipelines.engine_run import EngineRun
from pipelines.runtime import Progress, map_parts
from pipelines.sentences import Ids, bucket_bounds

LOOKUP = pa.schema(
    [("sentence_id", pa.int64()), ("text", pa.string()), ("engine", pa.string()), ("findings", pa.list_(FINDING))]
)
"""What phase 3 reads: the sentences with findings of one range, sorted by id."""

_ROW_COLUMNS = ("findings", "engine", "doubts", "ungrounded")


@dataclass(frozen=True)
class Audit:
    """How the sample of settled sentences is drawn."""

    share: float
    seed: int


@dataclass(frozen=True)
class Settled:
    """What settling found.

    Attributes
    ----------
    shards
        Of ``rejected`` and, with a model beside the rules, ``review_queue``.
    counts
        How many sentences were doubtful, audited and agreed on, and what was not grounded, by reason.
    rejected
        Reason code → sentences.
    """

    shards: dict[str, list[Shard]]
    counts: Counter[str]
    rejected: Counter[str]


def routed_to_model(
    sentences: pa.Table, bucket: int, buckets: int, *, rules: EngineRun, audit: Audit
) -> npt.NDArray[np.bool_]:
    """Return which sentences of a range a model reads beside the rules: the unsettled, and the audit sample."""
    ids = sentences["sentence_id"].to_numpy()
    rows = rules.cache.read_range(bucket, buckets, ["doubts"])
    doubtful = np.isin(ids, rows["sentence_id"].to_numpy()[unsettled(rows)])
    return np.asarray(doubtful | in_audit(ids, audit.share, audit.seed))


def settle(
    sentences: list[Shard],
    primary: EngineRun,
    model: EngineRun | None,
    audit: Audit,
    staging: Location,
    progress: Progress | None = None,
    *,
    model_counts: bool = True,
) -> Settled:
    """Write the lookup files of all ranges, and return what was refused and counted.

    With ``model_counts`` a usable answer of the model stands in for what the rules doubt; without, it is only compared.
    Once for a range: after a crash a cache may know more, and half of the mentions would have been made with less.
    """
    work = partial(
        _settle_bucket, primary=primary, model=model, audit=audit, staging=staging, model_counts=model_counts
    )
    records = map_parts(staging, "settle", work, list(enumerate(sentences)), progress=progress)
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for record in records:
        counts.update(record["counts"])
        rejected.update(record["reasons"])
    names = ("rejected", "review_queue") if model else ("rejected",)
    return Settled({name: [Shard(**record[name]) for record in records] for name in names}, counts, rejected)


def lookup_name(bucket: int) -> str:
    """Return the name of a range's lookup file within staging."""
    return f"lookup/part-{bucket:05d}.arrow"


def _settle_bucket(
    numbered: tuple[int, Shard],
    *,
    primary: EngineRun,
    model: EngineRun | None,
    audit: Audit,
    staging: Location,
    model_counts: bool,
) -> dict[str, Any]:
    bucket, shard = numbered
    sentences = read_shard(primary.run, shard, SENTENCES, ["sentence_id", "text", "count"])
    rows = _rows_of(primary, bucket, sentences)
    refused = _refused(rows, "extract", "The engine gave no usable answer for this sentence.")
    counts = _count_ungrounded(rows)
    record: dict[str, Any] = {}
    if model is not None:
        asked = _rows_of(model, bucket, sentences)
        doubtful = rows["sentence_id"].filter(pa.array(unsettled(rows))).to_numpy()
        ids = asked["sentence_id"].to_numpy()
        is_doubt = np.isin(ids, doubtful)
        routed = pa.array(is_doubt | in_audit(ids, audit.share, audit.seed))
        asked, is_doubt = asked.filter(routed), is_doubt[routed.to_numpy(zero_copy_only=False)]
        note = "The model gave no usable answer for this sentence; the findings of the rules stand."
        refused += _refused(asked, model.name, note)
        queue, compared = compare_readings(rows, asked, is_doubt, sentences)
        compared["model_answers_used"] *= model_counts
        for more in (_count_ungrounded(asked), compared, {"sentences_doubtful": len(doubtful)}):
            counts.update(more)  # adding counters would drop what is zero
        path = f"review_queue/part-{bucket:05d}.parquet"
        record["review_queue"] = write_shard(primary.run, path, REVIEW_QUEUE, queue).model_dump()
        rows = choose_readings(rows, asked, is_doubt & model_counts)
    path = f"rejected/part-{bucket:05d}.parquet"
    record["rejected"] = write_shard(primary.run, path, REJECTED, REJECTED.from_rows(refused)).model_dump()
    _write_lookup(staging / lookup_name(bucket), rows, sentences)
    return record | {"counts": dict(counts), "reasons": dict(Counter(str(row["code"]) for row in refused))}


def _rows_of(engine: EngineRun, bucket: int, sentences: pa.Table) -> pa.Table:
    """Return what counts of an engine's rows for the sentences of a range."""
    rows = engine.cache.read_range(bucket, engine.buckets, _ROW_COLUMNS)
    rows = rows.filter(pa.array(np.isin(rows["sentence_id"].to_numpy(), sentences["sentence_id"].to_numpy())))
    engine.check_answers(bucket, rows["sentence_id"].to_numpy())
    return rows


def _refused(rows: pa.Table, stage: str, message: str) -> list[dict[str, object]]:
    failed = rows.filter(pc.not_equal(rows["status"], OK))
    ids, codes = failed["sentence_id"].to_pylist(), failed["status"].to_pylist()
    return [
        {"id": str(sentence), "stage": stage, "code": code, "message": message}
        for sentence, code in zip(ids, codes, strict=True)
    ]


def _count_ungrounded(rows: pa.Table) -> Counter[str]:
    items = pc.list_flatten(rows["ungrounded"])
    reasons = pc.struct_field(items, "reason").to_pylist() if len(items) else []
    return Counter(f"ungrounded_{reason}" for reason in reasons)


def compare_readings(
    rules: pa.Table, model: pa.Table, is_doubt: npt.NDArray[np.bool_], sentences: pa.Table
) -> tuple[pa.Table, Counter[str]]:
    """Return the review queue of a range, and counts of what was asked and how often the two agreed.

    Parameters
    ----------
    rules, model
        Rows of ``sentence_findings``; the model's are those it was asked about, sorted by id.
    is_doubt
        For each row of ``model`` whether the rules doubted it; the others are the audit sample.
    sentences
        The range's sentences with their ``count``.
    """
    usable = pc.equal(model["status"], OK).to_numpy(zero_copy_only=False)
    counts = Counter(
        {"sentences_audited": int((~is_doubt).sum()), "model_answers_used": int((is_doubt & usable).sum())}
    )
    answered, doubts = model.filter(pa.array(usable)), is_doubt[usable]
    ids = answered["sentence_id"].to_numpy()
    readings = rules.take(np.searchsorted(rules["sentence_id"].to_numpy(), ids))
    frequency = sentences["count"].take(np.searchsorted(sentences["sentence_id"].to_numpy(), ids))
    queue: list[dict[str, object]] = []
    for row, rule, doubtful, count in zip(
        answered.to_pylist(), readings.to_pylist(), doubts, frequency.to_pylist(), strict=True
    ):
        kinds = disagreements(rule["findings"], row["findings"], load_ontology())
        counts["audit_answered"] += not doubtful
        counts["audit_agreed"] += not doubtful and not kinds
        if not kinds:
            continue
        queue.append(
            {
                "sentence_id": row["sentence_id"],
                "reason": DOUBT if doubtful else AUDIT,
                "doubts": rule["doubts"],
                "kinds": kinds,
                "rules": rule["findings"],
                "model": row["findings"],
                "engine": row["engine"],
                "count": count,
            }
        )
    return REVIEW_QUEUE.from_rows(queue), counts


def choose_readings(rules: pa.Table, model: pa.Table, is_doubt: npt.NDArray[np.bool_]) -> pa.Table:
    """Return one row for each sentence: the model's where the rules doubted and it is usable, else the rules'."""
    usable = pc.equal(model["status"], OK).to_numpy(zero_copy_only=False)
    better = model.filter(pa.array(usable & is_doubt))
    kept = ~np.isin(rules["sentence_id"].to_numpy(), better["sentence_id"].to_numpy())
    return pa.concat_tables([rules.filter(pa.array(kept)), better]).sort_by("sentence_id")


def _write_lookup(file: Location, rows: pa.Table, sentences: pa.Table) -> None:
    stated = pc.and_(pc.equal(rows["status"], OK), pc.greater(pc.list_value_length(rows["findings"]), 0))
    rows = rows.filter(stated)
    at = np.searchsorted(sentences["sentence_id"].to_numpy(), rows["sentence_id"].to_numpy())
    columns = [rows["sentence_id"], sentences["text"].take(at), rows["engine"], rows["findings"]]
    table = pa.table(columns, names=LOOKUP.names).cast(LOOKUP).combine_chunks()
    file.write_bytes(encode_lookup(table))


def encode_lookup(table: pa.Table) -> bytes:
    """Return the content of a lookup file: a digest, then the rows as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, LOOKUP) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    return _digest(data) + bytes(data.to_pybytes())


def _digest(data: pa.Buffer) -> bytes:
    """Return what stands before the rows of a lookup file: as many bytes as Arrow aligns its columns to."""
    return hashlib.sha512(data).digest()


@lru_cache(maxsize=4)
def _open_remote(uri: str) -> pa.Table:
    location = Location.parse(uri)
    return _read_lookup(pa.py_buffer(location.read_bytes()), location)


@lru_cache(maxsize=4096)
def _open_local(uri: str) -> pa.Table:
    # Mapped: all ranges together cost a worker no more than the pages it looks at.
    location = Location.parse(uri)
    return _read_lookup(pa.memory_map(location.path).read_buffer(), location)


def _read_lookup(data: pa.Buffer, location: Location) -> pa.Table:
    rows = data.slice(hashlib.sha512().digest_size)
    if data.slice(0, data.size - rows.size).to_pybytes() != _digest(rows):
        raise corrupt(location)
    return pa.ipc.open_stream(rows).read_all()


def open_lookup(location: Location) -> pa.Table:
    """Return one range's lookup table, mapped into memory where the file is local."""
    return (_open_local if location.scheme == "file" else _open_remote)(str(location))


def look_up(staging: Location, ids: Ids, buckets: int) -> pa.Table:
    """Return the lookup rows of sentences, given by sorted distinct ids, sorted by id; those without are left out."""
    found = []
    for bucket in range(buckets):
        first, last = bucket_bounds(bucket, buckets)
        mine = ids[np.searchsorted(ids, first) : np.searchsorted(ids, last, side="right")]
        if len(mine):
            table = open_lookup(staging / lookup_name(bucket))
            found.append(table.filter(pa.array(np.isin(table["sentence_id"].to_numpy(), mine))))
    return pa.concat_tables(found) if found else LOOKUP.empty_table()
