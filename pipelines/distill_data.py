"""The training set of `pipelines.distill`: what extract runs, gold, phantoms and the generator say → a file of rows.

The findings of sentences are read from the findings cache beside an extract run (``<root>/sentence_findings``), where
every engine keeps all it read: also that a sentence states nothing, and what rules doubt. Ranges of sentences and
blocks of the generator are read on the cluster, parts of phantom corpora too; the driver decides which rows stay by
numbers alone (`medfilip.distillation.join`) and holds the texts of one part at a time.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.distillation.dataset import TEST, TRAIN, TRIMMED, VALIDATION, Row, RowWriter
from medfilip.distillation.given import gold_rows, reading_of_row
from medfilip.distillation.join import (
    Mixture,
    Numbers,
    count_rows,
    in_splits,
    key_of,
    reviewed_rows,
    with_numbers,
)
from medfilip.distillation.make import make_block
from medfilip.distillation.row_file import RowFileWriter, table_of
from medfilip.distillation.sentences import BLOCK
from medfilip.extraction.engine import OK, FindingRow
from medfilip.extraction.gold import GoldSentence, read_gold
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.prompt import load_prompt
from medfilip.extraction.routing import unsettled
from medfilip.findings.ontology import load_ontology
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard, read_manifest
from medfilip.storage.run import Run
from medfilip.storage.schemas import SENTENCES
from medfilip.storage.shards import read_shard
from pipelines.distill_phantom import Corpus, CorpusPart
from pipelines.findings_cache import FindingsCache
from pipelines.runtime import Progress, map_parts
from pipelines.settle import choose_readings

Teacher = Literal["settled", "rules", "model"]
TRAINING_SET = "training_set.parquet"
_ROWS, _RECORD = "rows", "training_set.json"
_COLUMNS = ("findings", "engine", "doubts", "ungrounded")
_KEPT = ("kept", TRIMMED)


@dataclass(frozen=True)
class Taught:
    """An extract run and whose readings are taken from it.

    Attributes
    ----------
    run
        Its folder.
    rules, model
        Fingerprints of its extractors; a run of one engine has that as ``rules``, whichever it is.
    """

    run: Location
    rules: str
    model: str | None
    teacher: Teacher

    @classmethod
    def of(cls, run: Location, manifest: Manifest, teacher: Teacher) -> Taught:
        """Find the findings of an extract run's sentences.

        Raises
        ------
        MedfilipError
            ``CONFIG_INVALID`` for a teacher that the run does not have, ``INPUT_NOT_FOUND`` if its findings are gone.
        """
        versions = manifest.versions
        if manifest.job != "extract":
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID, f"{run} is a run of the job '{manifest.job}'.", fix="Give extract runs."
            )
        if "model" not in versions and teacher != "settled":
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"The setting 'teacher' is {teacher}, but one engine alone read the sentences of {run}.",
                fix="Leave it at settled, or give a run of engine=auto.",
            )
        found = cls(run, versions.get("rules", versions["extractor"]), versions.get("model"), teacher)
        for extractor in (found.rules, found.model):
            if extractor is not None and not found.cache(extractor).folder.exists():
                raise MedfilipError(
                    ErrorCode.INPUT_NOT_FOUND,
                    f"The findings of the sentences of {run} are not below its root.",
                    fix="Give the run where it was written: beside the folder sentence_findings.",
                )
        return found

    def cache(self, extractor: str) -> FindingsCache:
        """Return what one of its engines found."""
        return FindingsCache(self.run.parent.parent, extractor)


@dataclass(frozen=True)
class Part:
    """What one task reads: a range of the sentences of a run, some phantom reports, or a block of the generator."""

    name: str
    prompt: str
    taught: Taught | None = None
    shard: Shard | None = None
    bucket: int = 0
    buckets: int = 1
    phantom: CorpusPart | None = None
    block: int = 0
    seed: int = 0


@dataclass(frozen=True)
class TrainingSet:
    """What became of all sources.

    Attributes
    ----------
    rows
        Split, or source behind ``from_``, → rows; ``trimmed`` of them lost a slot that no word carries.
    dropped
        Reason → readings.
    """

    rows: Mapping[str, int]
    dropped: Mapping[str, int]


def make_training_set(
    run: Run,
    taught: Sequence[Taught],
    gold: Sequence[GoldSentence],
    mixture: Mixture,
    *,
    phantoms: Sequence[Corpus] = (),
    synthetic: int,
    seed: int,
    prompt: str,
    progress: Progress | None = None,
) -> TrainingSet:
    """Write ``training_set.parquet`` below a run, once, and return what is in it and what is not.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` if a split has no row.
    """
    record = run.staging / _RECORD
    if not record.exists():
        parts = list(_parts(taught, phantoms, synthetic, seed, prompt))
        records = map_parts(run.staging, "readings", partial(read_part, staging=run.staging), parts, progress=progress)
        counts = Counter[str]()
        for one in records:
            counts.update(one)
        facts = {
            "synthetic": "false" if taught or gold else "true",
            "fingerprint": run.spec.fingerprint,
            "prompt": prompt,
            "ontology": load_ontology().fingerprint,
        }
        rows = _join(run, parts, gold, mixture, counts, facts)
        dropped = {name: n for name, n in counts.items() if n and name not in _KEPT}
        told = {"rows": {**rows, TRIMMED: counts[TRIMMED]}, "dropped": dropped}
        record.write_bytes(json.dumps(told).encode())
    told = json.loads(record.read_bytes())
    for split in (TRAIN, VALIDATION, TEST):
        if not told["rows"][split]:
            raise MedfilipError(
                ErrorCode.NOT_ENOUGH_DATA,
                f"No sentence is in the split '{split}' of the training set.",
                fix="Give more sentences (findings, phantom, gold or synthetic), or raise test_share.",
            )
    return TrainingSet(told["rows"], told["dropped"])


def read_part(part: Part, *, staging: Location) -> dict[str, int]:
    """Write the rows of one part, and return the counts of what was kept and dropped."""
    if part.taught is not None:
        rows, counts = _read_range(part)
    elif part.phantom is not None:
        rows, counts = _read_phantom(part.phantom, part.prompt)
    else:
        rows, counts = make_block(part.block, part.seed)
    sink = pa.BufferOutputStream()
    pq.write_table(with_numbers(rows), sink, compression="zstd")
    _file(staging, part).write_bytes(sink.getvalue().to_pybytes())
    return dict(counts)


def _file(staging: Location, part: Part) -> Location:
    return staging / f"{_ROWS}/{part.name}.parquet"


def _read_columns(staging: Location, part: Part, columns: list[str] | None = None) -> pa.Table:
    file = _file(staging, part)
    with file.filesystem.open_input_file(file.path) as stream:
        return pq.read_table(stream, columns=columns)


def _join(
    run: Run,
    parts: Sequence[Part],
    gold: Sequence[GoldSentence],
    mixture: Mixture,
    counts: Counter[str],
    facts: Mapping[str, str],
) -> dict[str, int]:
    """Write the training set from the parts, and return its rows by split and source."""
    writer = RowWriter(load_ontology(), load_prompt(facts["prompt"]), counts)
    reviewed = reviewed_rows(gold, gold_rows(gold, writer), mixture, counts)
    numbers = Numbers()
    for part in parts:
        numbers.add(_read_columns(run.staging, part, ["key", "rank", "phenomenon"]))
    decided = {key_of(item.text, item.context) for item in gold}
    kept = numbers.choose(decided, mixture.phenomenon_share, counts)
    tables = in_splits((_read_columns(run.staging, part) for part in parts), kept, gold, mixture)
    total = len(reviewed) + sum(int(one.sum()) for one in kept)
    told = {**facts, "counts": json.dumps(dict(sorted(counts.items())) | {"kept": total})}
    rows = Counter({TRAIN: 0, VALIDATION: 0, TEST: 0})
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / TRAINING_SET
        with RowFileWriter(file, told) as written:
            for table in chain([table_of(reviewed)], tables):
                written.write(table)
                rows.update(count_rows(table))
        (run.location / TRAINING_SET).write_file(file)
    return dict(rows)


def gold_of(files: Sequence[str]) -> tuple[list[GoldSentence], dict[str, str]]:
    """Read gold files, and return their decisions and hashes; of decisions about one sentence the later one counts."""
    kept: dict[tuple[str, str], GoldSentence] = {}
    hashes: dict[str, str] = {}
    for number, name in enumerate(files):
        file = Location.parse(name)
        found = read_gold(file)
        hashes[f"gold_{number}"] = sha256_bytes(file.read_bytes())
        for item in found:
            before = kept.get((item.text, item.context or ""))
            if before is None or before.decided_at <= item.decided_at:
                kept[item.text, item.context or ""] = item
    return list(kept.values()), hashes


def _parts(
    taught: Sequence[Taught], phantoms: Sequence[Corpus], synthetic: int, seed: int, prompt: str
) -> Iterator[Part]:
    """Yield all parts, the most believed first: of rows about the same sentence the first one stays."""
    for number, corpus in enumerate(phantoms):
        for at, some in enumerate(corpus.parts):
            yield Part(f"phantom-{number:03d}-{at:05d}", prompt, phantom=some)
    for number, one in enumerate(taught):
        shards = read_manifest(one.run).dataset("sentences").shards
        for bucket, shard in enumerate(shards):
            name = f"given-{number:03d}-{bucket:05d}"
            yield Part(name, prompt, one, shard, bucket, len(shards))
    for block in range(-(-synthetic // BLOCK)):
        yield Part(f"synthetic-{block:05d}", prompt, block=block, seed=seed)


@lru_cache(maxsize=1)
def _rules() -> LexiconEngine:
    return LexiconEngine()


def _read_range(part: Part) -> tuple[list[Row], Counter[str]]:
    assert part.taught is not None
    assert part.shard is not None
    sentences = read_shard(part.taught.run, part.shard, SENTENCES, ["sentence_id", "text", "context"])
    rows, others = _teacher_rows(part, sentences)
    texts = {row["sentence_id"]: row for row in sentences.to_pylist()}
    writer = RowWriter(load_ontology(), load_prompt(part.prompt))
    written: list[Row] = []
    for row in rows.to_pylist():
        sentence = texts.pop(row["sentence_id"])
        text, context = sentence["text"], sentence["context"]
        other = others.get(row["sentence_id"], {})
        if part.taught.model is None and row["engine"] != LexiconEngine.name and row["status"] == OK:
            # No rules read beside this model: they do it now, and it must agree with them where they doubt nothing.
            read = _rules().extract(text, context)
            other = {} if read.doubts else {LexiconEngine.name: read.findings}
        reading = reading_of_row(text, context, row, other)
        if isinstance(reading, str):
            writer.counts[reading] += 1
        elif (found := writer.row(reading)) is not None:
            written.append(found)
    writer.counts["not_read"] += len(texts)
    return written, writer.counts


def _read_phantom(some: CorpusPart, prompt: str) -> tuple[list[Row], Counter[str]]:
    writer = RowWriter(load_ontology(), load_prompt(prompt))
    rows = [row for row in map(writer.row, some.readings(writer.counts)) if row is not None]
    return rows, writer.counts


def _teacher_rows(part: Part, sentences: pa.Table) -> tuple[pa.Table, dict[int, dict[str, list[FindingRow]]]]:
    """Return the rows of the teacher for a range, and what another engine of the run found in the same sentences."""
    taught = part.taught
    assert taught is not None
    first = _cached(part, taught.rules, sentences)
    if taught.model is None:
        return first, {}
    model = _cached(part, taught.model, sentences)
    doubtful = np.isin(model["sentence_id"].to_numpy(), first["sentence_id"].to_numpy()[unsettled(first)])
    chosen = {"settled": choose_readings(first, model, doubtful), "rules": first, "model": model}[taught.teacher]
    others: dict[int, dict[str, list[FindingRow]]] = {}
    for row in (*first.to_pylist(), *model.to_pylist()):
        if row["status"] == OK and not row["doubts"]:
            others.setdefault(row["sentence_id"], {})[row["engine"]] = row["findings"]
    return chosen, others


def _cached(part: Part, extractor: str, sentences: pa.Table) -> pa.Table:
    assert part.taught is not None
    rows = part.taught.cache(extractor).read_range(part.bucket, part.buckets, _COLUMNS)
    return rows.filter(pa.array(np.isin(rows["sentence_id"].to_numpy(), sentences["sentence_id"].to_numpy())))
