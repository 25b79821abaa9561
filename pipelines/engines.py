"""Phase 2 of extraction: the linear Ray Data plan Read → map → Write of each engine, resumed by row.

One row in, one row out, keyed by ``sentence_id``: Ray Data's checkpoint then skips what is already written. What it
writes has random names in any order and is only staging; the findings cache publishes it sorted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.engine import extract_table
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.storage.location import Location
from medfilip.storage.schemas import SENTENCE_FINDINGS
from pipelines.runtime import local_concurrency, task_error

if TYPE_CHECKING:
    from ray.data import Dataset

_MIN_BLOCKS, _MIN_ROWS = 8, 64


@lru_cache(maxsize=1)
def lexicon_engine() -> LexiconEngine:
    """Return the rule engine of this process."""
    return LexiconEngine()


def extract_with_lexicon(sentences: pa.Table) -> pa.Table:
    """Run the rule engine over a batch; the engine is built once in each worker process."""
    return extract_table(lexicon_engine(), sentences)


def lexicon_plan(dataset: Dataset) -> Dataset:
    """Return the rule engine's plan."""
    return dataset.map_batches(
        extract_with_lexicon, batch_format="pyarrow", num_cpus=1, concurrency=local_concurrency()
    )


def run_plan(
    pending: pa.Table, staging: Location, plan: Callable[[Dataset], Dataset], *, rows_per_block: int
) -> pa.Table:
    """Run an engine's plan over the pending sentences and return its rows, one for each.

    The pending sentences are written first, since Ray filters only what it reads from files; a resumed run finds them
    there and computes only the rows that are not yet written.
    """
    import ray

    target = staging / "found"
    source = pending_file(staging).parent
    pending = _fix_pending(pending_file(staging), pending)
    target.make_dir()
    if not pending.num_rows:
        return SENTENCE_FINDINGS.empty()
    try:
        with _checkpointed(staging / "checkpoint"):
            dataset = ray.data.read_parquet(source.path, filesystem=source.filesystem)
            # A block is the grain of resuming and of parallel work; Ray's own default is one block for 128 MB.
            rows = min(rows_per_block, max(_MIN_ROWS, -(-pending.num_rows // _MIN_BLOCKS)))
            dataset = plan(dataset.repartition(target_num_rows_per_block=rows))
            dataset.write_parquet(target.path, filesystem=target.filesystem)
    except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
        raise task_error(error) from error
    return _collect(target, pending)


def pending_file(staging: Location) -> Location:
    """Where the sentences given to an engine stand while the run is unfinished."""
    return staging / "pending" / "sentences.parquet"


def _fix_pending(file: Location, pending: pa.Table) -> pa.Table:
    """Write the pending sentences, or return those an earlier attempt wrote: the checkpoint counts from them."""
    if file.exists():
        return pq.read_table(file.path, filesystem=file.filesystem)
    sink = pa.BufferOutputStream()
    pq.write_table(pending, sink)
    file.write_bytes(sink.getvalue().to_pybytes())
    return pending


def _collect(target: Location, pending: pa.Table) -> pa.Table:
    tables = [
        SENTENCE_FINDINGS.conform(pq.read_table(file.path, filesystem=file.filesystem))
        for file in target.children()
        if file.name.endswith(".parquet")
    ]
    found = pa.concat_tables(tables) if tables else SENTENCE_FINDINGS.empty()
    expected, ids = set(pending["sentence_id"].to_pylist()), found["sentence_id"].to_pylist()
    if len(ids) != len(expected) or set(ids) != expected:
        raise MedfilipError(
            ErrorCode.ENGINE_FAILED,
            f"The engine was given {len(expected)} sentences and returned {len(ids)} rows.",
            fix="Start the job again; if this repeats, start another run with --new-run.",
        )
    return found


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
    try:
        yield
    finally:
        context.checkpoint_config = before


def cluster_has_gpus() -> bool:
    """Whether the cluster has GPUs to run engines on."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0)) > 0


def engine_environment() -> dict[str, Any]:
    """Return environment variables for engine actors: no hub, no telemetry, no request logging."""
    names = ("HF_HOME", "HF_TOKEN")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return kept | {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
