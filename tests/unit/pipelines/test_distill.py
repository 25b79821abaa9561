"""What distillation learns from: which settings are refused, and which readings of a run become rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.distillation.row_file import read_rows
from medfilip.extraction.engine import SentenceResult, results_table
from medfilip.extraction.gold import Choice, GoldSentence, append_gold
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.prompt import STUDENT_PROMPT
from medfilip.extraction.reply import ReplyReader
from medfilip.findings.ontology import load_ontology
from medfilip.phantom import corpus
from medfilip.phantom.corpus import write_reports
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.run import RunSpec, open_run
from medfilip.storage.schemas import SENTENCES
from medfilip.storage.shards import write_shard
from pipelines import distill_phantom
from pipelines.distill import DistillJobSettings, run
from pipelines.distill_data import Part, Taught, Teacher, gold_of, read_part
from pipelines.distill_phantom import Corpus
from pipelines.findings_cache import FindingsCache

TEXTS = {
    1: "small left pleural effusion",
    2: "no pneumothorax",
    3: "opacity at the left base, atelectasis versus pneumonia",
    4: "the patient was seen",
    5: "a nodule in the right upper lobe",
    6: "cardiomegaly",
}
RULES = LexiconEngine()


def read(number: int) -> SentenceResult:
    return RULES.extract(TEXTS[number])


def settings(*overrides: str) -> DistillJobSettings:
    return load_settings(DistillJobSettings, "distill", overrides=overrides, environment={})


def fill(root: Location, extractor: str, engine: str, results: dict[int, SentenceResult]) -> None:
    cache = FindingsCache(root, extractor)
    ids = pa.chunked_array([pa.array(sorted(results), pa.int64())])
    table = results_table(ids, engine, [results[number] for number in sorted(results)])
    cache.publish("run", [cache.write_range("run", 0, 1, table)], {})


def extracted(root: Location, versions: dict[str, str], job: str = "extract") -> Location:
    """A finished run with the sentences, whose findings are in the cache beside it."""
    rows = [
        {"sentence_id": n, "text": text, "context": None, "section_group": "findings", "count": 1}
        for n, text in TEXTS.items()
    ]
    with open_run(root, RunSpec(job, {}, {}, versions)) as opened:
        shard = write_shard(opened.location, "sentences/part-00000.parquet", SENTENCES, SENTENCES.from_rows(rows))
        opened.publish({"sentences": [shard]})
        return opened.location


def taught(folder: Location, teacher: Teacher = "settled") -> Taught:
    return Taught.of(folder, read_manifest(folder), teacher)


def rows_of(one: Taught, staging: Path) -> tuple[dict[str, tuple[str, str]], dict[str, int]]:
    """Return text → (source, reply), and the counts."""
    (shard,) = read_manifest(one.run).dataset("sentences").shards
    counts = read_part(Part("part", STUDENT_PROMPT, one, shard), staging=Location.parse(staging))
    rows, _ = read_rows(staging / "rows/part.parquet")
    return {row.text: (row.source, row.reply) for row in rows}, {k: v for k, v in counts.items() if v}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((), "give something to learn from"),
        (("synthetic=10", "workers=2", "min_workers=3"), "min_workers=3 is above workers=2"),
        (("synthetic=10", "train.lora_rank=2"), "lora_rank needs 'base'"),
        (("synthetic=10", "test_share=0"), "test_share"),
        (("synthetic=10", "teacher=chief"), "teacher"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(MedfilipError, match=told) as caught:
        settings(*overrides)
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_the_gate_decides_nothing_but_whether_to_publish() -> None:
    assert settings("synthetic=10").semantic() == settings("synthetic=10", "gate.f1_ratio=0.5").semantic()
    given = settings("findings=a", "gold=b", "phantom=[c,d]")
    assert given.gold == ("b",) and given.phantom == ("c", "d")


def test_a_base_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(MedfilipError, match="holds no config") as caught:
        run(settings("synthetic=10", f"train.base={tmp_path}", f"root={tmp_path / 'runs'}"))
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND and not (tmp_path / "runs").exists()


def test_rules_teach_what_they_do_not_doubt_also_that_nothing_is_there(tmp_path: Path) -> None:
    root = Location.parse(tmp_path / "runs")
    fill(root, "rules", "lexicon", {number: read(number) for number in (1, 2, 3, 4)})
    rows, counts = rows_of(taught(extracted(root, {"extractor": "rules"})), tmp_path)
    assert rows.keys() == {TEXTS[1], TEXTS[2], TEXTS[4]} and rows[TEXTS[4]] == ("lexicon", '{"f":[]}')
    assert counts == {"kept": 3, "doubted": 1, "not_read": 2}


def test_a_model_alone_must_agree_with_rules_that_read_beside_it(tmp_path: Path) -> None:
    root = Location.parse(tmp_path / "runs")
    lost = ({"mention": "nodule", "category": "nodule", "reason": "mention_not_in_sentence"},)
    found = {
        1: read(1),
        2: read(5),  # of another sentence
        3: read(3),
        4: replace(read(4), ungrounded=lost),
        5: SentenceResult([], status=ErrorCode.REPLY_INVALID),
        6: SentenceResult([]),
    }
    fill(root, "model", "vllm", found)
    rows, counts = rows_of(taught(extracted(root, {"extractor": "model"})), tmp_path)
    assert {text: source for text, (source, _) in rows.items()} == {TEXTS[1]: "vllm", TEXTS[3]: "vllm"}
    assert counts == {"kept": 2, "ungrounded": 1, "not_read": 1, "disagrees_category": 2}


@pytest.mark.parametrize(
    ("teacher", "sources", "dropped"),
    [
        ("settled", {1: "lexicon", 2: "lexicon", 3: "vllm"}, {"disagrees_category": 1, "not_read": 2}),
        ("rules", {1: "lexicon", 2: "lexicon"}, {"disagrees_category": 1, "doubted": 1, "not_read": 2}),
        ("model", {2: "vllm", 3: "vllm"}, {"disagrees_category": 1, "not_read": 3}),
    ],
)
def test_rules_and_a_model_together(
    teacher: Teacher, sources: dict[int, str], dropped: dict[str, int], tmp_path: Path
) -> None:
    root = Location.parse(tmp_path / "runs")
    fill(root, "r", "lexicon", {number: read(number) for number in (1, 2, 3, 5)})
    # Of the settled sentences, 2 and 5 were audited: the model agrees about the first.
    fill(root, "m", "vllm", {2: read(2), 3: read(3), 5: SentenceResult([])})
    folder = extracted(root, {"extractor": "both", "rules": "r", "model": "m"})
    rows, counts = rows_of(taught(folder, teacher), tmp_path)
    assert {text: source for text, (source, _) in rows.items()} == {TEXTS[n]: who for n, who in sources.items()}
    assert counts == {"kept": len(sources), **dropped}


def test_runs_that_cannot_teach_are_refused(tmp_path: Path) -> None:
    root = Location.parse(tmp_path / "runs")
    with pytest.raises(MedfilipError, match="run of the job 'ingest'"):
        taught(extracted(root, {"extractor": "rules"}, job="ingest"))
    folder = extracted(root, {"extractor": "rules"})
    with pytest.raises(MedfilipError, match="not below its root") as caught:
        taught(folder)
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND
    with pytest.raises(MedfilipError, match="one engine alone") as caught:
        taught(folder, "model")
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_of_several_gold_files_the_later_decision_counts(tmp_path: Path) -> None:
    early = datetime(2026, 1, 1, tzinfo=UTC)
    decision = GoldSentence(sentence_id=1, text=TEXTS[6], findings=(), choice=Choice.NEITHER, decided_at=early)
    later = decision.model_copy(update={"choice": Choice.RULES, "decided_at": early + timedelta(days=1)})
    append_gold(tmp_path / "a.jsonl", later)
    append_gold(tmp_path / "b.jsonl", decision)
    found, hashes = gold_of([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    assert [item.choice for item in found] == [Choice.RULES] and len(set(hashes.values())) == 2


def phantom_rows(folder: Path, staging: Path) -> list[tuple[str, str]]:
    """Return text and reply of what all parts of a corpus teach, sorted."""
    found: set[tuple[str, str]] = set()
    for at, part in enumerate(Corpus.of(Location.parse(folder)).parts):
        counts = read_part(Part(f"p{at}", STUDENT_PROMPT, phantom=part), staging=Location.parse(staging))
        rows, _ = read_rows(staging / f"rows/p{at}.parquet")
        assert counts["kept"] == len(rows) and {row.source for row in rows} == {"phantom"}
        found.update((row.text, row.reply) for row in rows)
    return sorted(found)


def test_a_phantom_teaches_its_truth_however_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "REPORTS_PER_FILE", 25)
    write_reports(tmp_path / "corpus", 60, seed=3)
    whole = phantom_rows(tmp_path / "corpus", tmp_path / "whole")
    monkeypatch.setattr(distill_phantom, "REPORTS_PER_PART", 7)
    monkeypatch.setattr(distill_phantom, "_CHUNK", 1_000)
    assert phantom_rows(tmp_path / "corpus", tmp_path / "cut") == whole and len(whole) > 100
    reader, agreed = ReplyReader(load_ontology()), []
    for text, reply in whole:
        rules = RULES.extract(text)
        if not rules.doubts:
            told = reader.read(reply, text).findings
            stated, seen = (
                {(row["category"], str(row["certainty"])) for row in rows} for rows in (told, rules.findings)
            )
            agreed.append(stated == seen)
    assert len(agreed) > 100 and sum(agreed) > 0.97 * len(agreed), "another reading of the same sentences"


def test_a_folder_that_is_no_corpus_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "corpus"
    with pytest.raises(MedfilipError, match="holds no reports") as caught:
        Corpus.of(Location.parse(place))
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND
    write_reports(place, 3, seed=3)
    lines = (place / "truth.jsonl").read_text().splitlines(keepends=True)
    (place / "truth.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(MedfilipError, match="2 reports, the table 3") as caught:
        Corpus.of(Location.parse(place))
    before = "".join([lines[0], "{}\n", lines[2]]), "".join([lines[0], lines[2], lines[1]])
    for content, problem in zip(before, ("Line 2 is not the truth", "another report than row 2"), strict=True):
        (place / "truth.jsonl").write_text(content)
        (part,) = Corpus.of(Location.parse(place)).parts
        with pytest.raises(MedfilipError, match=problem) as caught:
            read_part(Part("p", STUDENT_PROMPT, phantom=part), staging=Location.parse(tmp_path))
        assert caught.value.code is ErrorCode.SCHEMA_MISMATCH
