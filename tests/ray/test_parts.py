"""An engine that any worker runs: parts are counted once for all, and a lost cluster is told as one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location
from pipelines.engine_run import EngineRun
from pipelines.engines import extract_with_lexicon
from pipelines.findings_cache import FindingsCache
from pipelines.runtime import task_error
from tests.ray.conftest import Ran


def read_unless(sentences: pa.Table, *, broken: Path) -> pa.Table:
    if broken.exists() and len(list(broken.parent.glob("runs/staging/records/read/*.json"))) >= 2:
        raise OSError(28, "No space left on device")
    return extract_with_lexicon(sentences)


def test_parts_done_before_a_failure_count_whatever_is_set_afterwards(extracted: Ran, tmp_path: Path) -> None:
    shards = list(extracted.manifest.dataset("sentences").shards)
    root = Location.parse(tmp_path / "runs")
    cache = FindingsCache(root, "extractor")
    run = EngineRun("lexicon", cache, "run", extracted.location, root / "staging", len(shards))
    counts = run.choose(shards)
    broken = tmp_path / "broken"
    broken.touch()
    read = partial(read_unless, broken=broken)
    with pytest.raises(MedfilipError, match="No space left on device") as caught:
        run.execute_parts(read, rows_per_part=8)
    assert caught.value.code is ErrorCode.STORAGE_FAILED
    assert not cache.has("run")
    # What a neighbour of the failed task still writes is not done before its record is there.
    done = {file.stem for file in tmp_path.glob("runs/staging/records/read/*.json")}
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/staging/cut/*/*")}
    assert len(done) >= 2
    broken.unlink()
    run.execute_parts(read, rows_per_part=5000)
    parts = sorted(tmp_path.glob("runs/staging/cut/*/*"))  # in the order of their records
    before = [file for number, file in enumerate(parts) if f"part-{number:05d}" in done]
    assert [file.stat().st_mtime_ns for file in before] == [written[file] for file in before], "nothing was read twice"
    rows = pa.concat_tables([cache.read_range(bucket, len(shards)) for bucket in range(len(shards))])
    assert rows.num_rows == counts["pending"] == len(set(rows["sentence_id"].to_pylist()))


def test_an_answer_that_the_cache_has_lost_is_missed(extracted: Ran, tmp_path: Path) -> None:
    shards = list(extracted.manifest.dataset("sentences").shards)
    root = Location.parse(tmp_path)
    run = EngineRun("lexicon", FindingsCache(root, "e"), "run", extracted.location, root / "staging", len(shards))
    run.choose(shards)
    run.execute_parts(extract_with_lexicon, rows_per_part=1000)
    ids = run.cache.read_range(0, len(shards), [])["sentence_id"].to_numpy()
    run.check_answers(0, ids)
    with pytest.raises(MedfilipError, match="has lost answers") as caught:
        run.check_answers(0, ids[1:])
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND and "--new-run" in caught.value.fix


def test_a_lost_node_is_no_internal_error() -> None:
    from ray.exceptions import LocalRayletDiedError, TaskCancelledError

    lost, other = task_error(LocalRayletDiedError()), task_error(TaskCancelledError())
    assert isinstance(lost, MedfilipError) and lost.code is ErrorCode.CLUSTER_UNREACHABLE
    assert isinstance(other, MedfilipError) and other.code is ErrorCode.INTERNAL
