"""Phase 2 of extraction: the sentences one engine still has to read, its Ray Data plan, and what it adds to the cache.

One row in, one row out, keyed by ``sentence_id``: Ray Data's checkpoint then skips what is already written. What it
writes has random names in any order and is only staging; it is cut by range of ids, checked against what was asked, and
published sorted. Ids travel as arrays and rows by range: the driver holds neither sentences nor findings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard
from medfilip.storage.schemas import SENTENCES, DatasetSchema
from medfilip.storage.shards import (
    CHECKED,
    decode_shard,
    decode_table,
    read_shard,
    read_staged,
    write_shard,
    write_staged,
)
from pipelines.findings_cache import RETRIED, FindingsCache
from pipelines.runtime import Progress, map_parts, no_progress, task_error
from pipelines.sentences import cut_sorted

if TYPE_CHECKING:
    from ray.data import Dataset

Plan = Callable[["Dataset"], "Dataset"]
Reader = Callable[[pa.Table], pa.Table]
"""Sentences → their rows of ``sentence_findings``, in the same order."""

Wanted = Callable[[pa.Table, int, int], npt.NDArray[np.bool_]]
"""Of a range of ``sentences``, its number and the number of ranges: which of them an engine should read at all."""

_MIN_BLOCKS, _MIN_ROWS, _COLLECT_PARTS = 8, 64, 64


@dataclass(frozen=True)
class EngineRun:
    """One engine's share of an extract run.

    Attributes
    ----------
    name
        Name of the engine.
    cache
        What its extractor knows already.
    run_id
        Of the extract run: the name of the increment.
    run, staging
        Folder of the run, and of the engine's own intermediate files.
    buckets
        Number of ranges of ids.
    """

    name: str
    cache: FindingsCache
    run_id: str
    run: Location
    staging: Location
    buckets: int

    def choose(
        self,
        sentences: Sequence[Shard],
        *,
        wanted: Wanted | None = None,
        retry: frozenset[ErrorCode] = frozenset(),
        at_most: int | None = None,
    ) -> dict[str, int]:
        """Write the sentences the engine has to read, once for the run: the checkpoint counts from them.

        Parameters
        ----------
        sentences
            Shards of the run's ``sentences``, one for each range.
        wanted
            Which sentences the engine should read at all; by default every one.
        retry
            Codes of earlier answers to try again; beside them only what was never read is read, and not even that
            with ``at_most``.
        at_most
            Read at most so many, the most frequent first.

        Returns
        -------
        dict
            How many sentences are ``wanted``, ``known`` already, and ``pending``.
        """
        decided = self.staging / "pending.json"
        if decided.exists():
            return dict(json.loads(decided.read_bytes()))
        work = partial(_choose_bucket, engine=self, wanted=wanted, retry=retry, limited=at_most is not None)
        records = map_parts(self.staging, "choose", work, list(enumerate(sentences)))
        counts = {name: sum(record[name] for record in records) for name in ("wanted", "known", "pending")}
        if at_most is not None and counts["pending"] > at_most:
            self._keep_most_frequent(at_most)
            counts["pending"] = at_most
        decided.write_bytes(json.dumps(counts).encode())
        return counts

    def _keep_most_frequent(self, at_most: int) -> None:
        tables = [pq.read_table(file.path, filesystem=file.filesystem, columns=["sentence_id", "count"])
                  for file in self._pending_files()]  # fmt: skip
        ids = np.concatenate([table["sentence_id"].to_numpy() for table in tables])
        counts = np.concatenate([table["count"].to_numpy() for table in tables])
        kept = np.sort(ids[np.lexsort((ids, -counts))[:at_most]])
        for file in self._pending_files():
            table = pq.read_table(file.path, filesystem=file.filesystem)
            rest = table.filter(pa.array(np.isin(table["sentence_id"].to_numpy(), kept)))
            write_shard(file.parent, file.name, SENTENCES, rest)

    def _pending_files(self) -> list[Location]:
        return [file for file in (self.staging / "pending").children() if file.name.endswith(".parquet")]

    def sample(self, rows: int) -> pa.Table:
        """Return some of the pending sentences, spread over the ranges."""
        files = self._pending_files()
        share = -(-rows // max(1, len(files)))
        tables = [pq.read_table(file.path, filesystem=file.filesystem) for file in files[:rows]]
        picked = [
            t.take(np.linspace(0, t.num_rows - 1, min(share, t.num_rows)).astype(int)) for t in tables if t.num_rows
        ]
        return pa.concat_tables(picked).slice(0, rows) if picked else SENTENCES.empty()

    def execute(self, plan: Plan, *, rows_per_block: int, progress: Progress | None = None) -> Counter[str]:
        """Run the engine over its pending sentences, publish what it found, and return the tokens it spent.

        What an earlier attempt wrote or published is not done again.
        """
        if self.cache.has(self.run_id):
            return self.cache.spent_by(self.run_id)
        pending = json.loads((self.staging / "pending.json").read_bytes())["pending"]
        if pending and not (self.staging / "computed").exists():
            with (progress or no_progress)(self.name, "sentences", pending, _RowCounter(self.staging / "found").count):
                self._compute(plan, pending, rows_per_block)
            (self.staging / "computed").write_bytes(b"")
        files = [file for file in (self.staging / "found").children() if file.name.endswith(".parquet")]
        groups = [files[start::_COLLECT_PARTS] for start in range(min(len(files), _COLLECT_PARTS))]
        cut = partial(_cut_found, staging=self.staging, buckets=self.buckets, schema=self.cache.schema)
        map_parts(self.staging, "cut", cut, list(enumerate(groups)))
        return self._publish([len(groups)] * self.buckets)

    def execute_parts(self, read: Reader, *, rows_per_part: int, progress: Progress | None = None) -> Counter[str]:
        """Do as `execute` does, with an engine that any worker can run.

        Ray Data starts services and a plan of its own: ten seconds and more, in which rules read half a million
        sentences.
        """
        if self.cache.has(self.run_id):
            return self.cache.spent_by(self.run_id)
        rows = self._rows_of_a_part(rows_per_part)
        counts = [0] * self.buckets
        for file in self._pending_files():
            held = pq.read_metadata(file.path, filesystem=file.filesystem).num_rows
            counts[_bucket_of(file)] = -(-held // rows)
        parts = [(bucket, number) for bucket, count in enumerate(counts) for number in range(count)]
        map_parts(
            self.staging, "read", partial(_read_part, engine=self, read=read, rows=rows), parts, progress=progress
        )
        return self._publish(counts)

    def _rows_of_a_part(self, rows_per_part: int) -> int:
        """Return how many sentences a part has: decided once, as what is done already is counted in parts."""
        decided = self.staging / "part_rows.json"
        if not decided.exists():
            pending = json.loads((self.staging / "pending.json").read_bytes())["pending"]
            rows = min(rows_per_part, max(_MIN_ROWS, -(-pending // _MIN_BLOCKS)))
            decided.write_bytes(json.dumps(rows).encode())
        return int(json.loads(decided.read_bytes()))

    def _publish(self, groups: Sequence[int]) -> Counter[str]:
        """Put the pieces of each range together, publish the increment, and return what was spent on it."""
        collect = partial(_collect_bucket, engine=self, groups=groups)
        records = map_parts(self.staging, "collect", collect, list(range(self.buckets)))
        spent: Counter[str] = Counter()
        for record in records:
            spent.update(record["spent"])
        self.cache.publish(self.run_id, [Shard(**record["shard"]) for record in records], spent)
        return spent

    def check_answers(self, bucket: int, answered: npt.NDArray[np.int64]) -> None:
        """Raise if the cache no longer holds what a range had when the run chose what to read, or has read since."""
        record = json.loads((self.staging / "records" / "choose" / f"part-{bucket:05d}.json").read_bytes())
        missing = int((~np.isin(self._asked(bucket), answered)).sum())
        if missing or len(answered) < record["known"]:
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND,
                f"The findings cache {self.cache.folder} has lost answers that this run counts on.",
                fix="Start another run with --new-run: it reads those sentences again.",
            )

    def _asked(self, bucket: int) -> npt.NDArray[np.int64]:
        """Return the ids of a range that the engine was given."""
        file = self.staging / "pending" / _pending_name(bucket)
        if not file.exists():
            return np.empty(0, np.int64)
        # All columns are read: what the engine was given has to be what was asked about.
        return np.asarray(decode_shard(file.read_bytes(), file, SENTENCES)["sentence_id"].to_numpy())

    def _compute(self, plan: Plan, pending: int, rows_per_block: int) -> None:
        import ray

        target, source = self.staging / "found", self.staging / "pending"
        target.make_dir()
        try:
            with _checkpointed(self.staging / "checkpoint"):
                dataset = ray.data.read_parquet(source.path, filesystem=source.filesystem)
                # A block is the grain of resuming and of parallel work; Ray's own default is one block for 128 MB.
                rows = min(rows_per_block, max(_MIN_ROWS, -(-pending // _MIN_BLOCKS)))
                dataset = plan(dataset.repartition(target_num_rows_per_block=rows))
                dataset.write_parquet(target.path, filesystem=target.filesystem, **CHECKED)
        except ray.exceptions.ActorDiedError as error:
            raise MedfilipError(
                ErrorCode.ENGINE_FAILED,
                f"The engine '{self.name}' died more often than 'vllm.max_restarts' allows.",
                fix="Check memory and GPU, then start the job again: it resumes, and remembers what it died of.",
            ) from error
        except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
            self._check_pending()
            raise task_error(error) from error

    def _check_pending(self) -> None:
        """Raise the error that names a damaged file of what the engine reads, if one is: Ray's own does not."""
        for file in self._pending_files():
            decode_shard(file.read_bytes(), file, SENTENCES)


class _RowCounter:
    """Counts the rows written below a folder; a file's footer is read once."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder
        self._rows: dict[str, int] = {}

    def count(self) -> int:
        for file in self._folder.children():
            if file.name.endswith(".parquet") and file.path not in self._rows:
                self._rows[file.path] = pq.read_metadata(file.path, filesystem=file.filesystem).num_rows
        return sum(self._rows.values())


def _choose_bucket(
    numbered: tuple[int, Shard],
    *,
    engine: EngineRun,
    wanted: Wanted | None,
    retry: frozenset[ErrorCode],
    limited: bool,
) -> dict[str, Any]:
    bucket, shard = numbered
    sentences = read_shard(engine.run, shard, SENTENCES)
    if wanted is not None:
        sentences = sentences.filter(pa.array(wanted(sentences, bucket, engine.buckets)))
    # Not what this run itself has published: if its staging is made anew, its counts must come out the same.
    answered = engine.cache.read_range(bucket, engine.buckets, [], without=engine.run_id)
    ids = sentences["sentence_id"].to_numpy()
    known = np.isin(ids, answered["sentence_id"].to_numpy())
    if retry:
        again = pc.is_in(answered["status"], value_set=pa.array(sorted(retry), pa.string()))
        chosen = np.isin(ids, answered["sentence_id"].filter(again).to_numpy())
        # What no run has read yet would be missing from the findings, unless a limit says that it should be.
        chosen |= ~known & (not limited)
    else:
        chosen = ~known
    pending = sentences.filter(pa.array(chosen))
    if pending.num_rows:
        write_shard(engine.staging / "pending", _pending_name(bucket), SENTENCES, pending)
    return {"wanted": len(ids), "known": int(known.sum()), "pending": pending.num_rows}


def _cut_found(
    numbered: tuple[int, list[Location]], *, staging: Location, buckets: int, schema: DatasetSchema
) -> dict[str, Any]:
    """Cut what Ray wrote in some files by range of ids."""
    number, files = numbered
    tables = [schema.conform(decode_table(file.read_bytes(), file)) for file in files]
    table = pa.concat_tables(tables)
    table = table.take(np.argsort(table["sentence_id"].to_numpy(), kind="stable"))
    cuts = cut_sorted(table["sentence_id"].to_numpy(), buckets)
    for bucket in range(buckets):
        part = table.slice(cuts[bucket], cuts[bucket + 1] - cuts[bucket])
        write_staged(staging / "cut" / _cut_path(bucket, number), schema, part)
    return {}


def _read_part(part: tuple[int, int], *, engine: EngineRun, read: Reader, rows: int) -> dict[str, Any]:
    """Let the engine read some of a range's sentences."""
    bucket, number = part
    file = engine.staging / "pending" / _pending_name(bucket)
    sentences = decode_shard(file.read_bytes(), file, SENTENCES).slice(number * rows, rows)
    write_staged(engine.staging / "cut" / _cut_path(bucket, number), engine.cache.schema, read(sentences))
    return {}


def _collect_bucket(bucket: int, *, engine: EngineRun, groups: Sequence[int]) -> dict[str, Any]:
    """Write one range of the increment, after a check that every sentence asked about has one row."""
    cut, schema = engine.staging / "cut", engine.cache.schema
    tables = [read_staged(cut / _cut_path(bucket, number), schema) for number in range(groups[bucket])]
    found = pa.concat_tables(tables) if tables else schema.empty()
    asked = engine._asked(bucket)
    if not np.array_equal(np.sort(found["sentence_id"].to_numpy()), np.sort(asked)):
        raise MedfilipError(
            ErrorCode.ENGINE_FAILED,
            f"The engine was given {len(asked)} sentences of a range and returned {found.num_rows} rows.",
            fix="Start the job again; if this repeats, start another run with --new-run.",
        )
    spent = {name: int(pc.sum(found[name]).as_py() or 0) for name in ("input_tokens", "output_tokens", "cached_tokens")}
    if "findings" in found.column_names:
        spent["findings"] = int(pc.sum(pc.list_value_length(found["findings"])).as_py() or 0)
    return {
        "shard": engine.cache.write_range(engine.run_id, bucket, engine.buckets, found).model_dump(),
        "spent": spent,
    }


def _pending_name(bucket: int) -> str:
    return f"part-{bucket:05d}.parquet"


def _bucket_of(pending: Location) -> int:
    return int(pending.name.removeprefix("part-").removesuffix(".parquet"))


def _cut_path(bucket: int, number: int) -> str:
    return f"bucket-{bucket:04d}/part-{number:05d}.parquet"


def retried_codes(*, quarantined: bool) -> frozenset[ErrorCode]:
    """Return the codes that ``--retry-rejected`` tries again."""
    return RETRIED | {ErrorCode.ENGINE_QUARANTINED} if quarantined else RETRIED


@contextmanager
def _checkpointed(folder: Location) -> Iterator[None]:
    """Turn Ray Data's row checkpoint on for the plans built inside."""
    from ray.data import DataContext
    from ray.data.checkpoint import CheckpointConfig

    folder.make_dir()
    context = DataContext.get_current()
    before = context.checkpoint_config
    context.checkpoint_config = CheckpointConfig(
        id_column="sentence_id",
        checkpoint_path=folder.path,
        override_filesystem=folder.filesystem,
        # Kept: with Ray's default, a job started again after success would write every row a second time.
        delete_checkpoint_on_success=False,
    )
    raised = context.raise_original_map_exception
    # Ray's own wrapper loses the error it wraps on its way to the driver, and with it our code and fix.
    context.raise_original_map_exception = True
    try:
        yield
    finally:
        context.checkpoint_config, context.raise_original_map_exception = before, raised
