"""Which reading counts, what goes to the review queue, and how mentions get back to the report's own characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.engine import SentenceResult, results_table
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.findings.finding import Finding
from medfilip.reports.sections import split_sections
from medfilip.reports.sentences import report_sentences
from medfilip.storage.location import Location
from medfilip.storage.schemas import OCCURRENCES, SENTENCES
from pipelines.mentions import mentions_of
from pipelines.sentences import bucket_bounds, merge_sentences
from pipelines.settle import LOOKUP, choose_readings, compare_readings, encode_lookup, look_up, lookup_name

SENTENCE_TABLE = pa.table({"sentence_id": pa.array([1, 2, 3, 4], pa.int64()), "count": pa.array([9, 8, 7, 6])})


def finding(category: str, side: str | None = None) -> dict[str, Any]:
    return Finding.model_validate({"category": category, "laterality": side}).to_row()


def table(engine: str, results: dict[int, SentenceResult]) -> pa.Table:
    ids = pa.chunked_array([pa.array(sorted(results), pa.int64())])
    return results_table(ids, engine, [results[i] for i in sorted(results)])


RULES = table(
    "lexicon",
    {
        1: SentenceResult([finding("nodule")]),
        2: SentenceResult([finding("nodule")], doubts=("mixed_cues",)),
        3: SentenceResult([finding("edema")], doubts=("mixed_cues",)),
        4: SentenceResult([finding("mass", "left")]),
    },
)
MODEL = table(
    "vllm",
    {
        2: SentenceResult([finding("mass")]),
        3: SentenceResult([], status=ErrorCode.REPLY_TRUNCATED),
        4: SentenceResult([finding("mass", "right")]),
    },
)
IS_DOUBT = np.array([True, True, False])


def test_the_model_counts_where_rules_doubt_and_its_answer_is_usable() -> None:
    rows = choose_readings(RULES, MODEL, IS_DOUBT).to_pylist()
    assert [(row["sentence_id"], row["engine"]) for row in rows] == [
        (1, "lexicon"),
        (2, "vllm"),
        (3, "lexicon"),
        (4, "lexicon"),
    ]


def test_an_untrained_models_rows_replace_nothing() -> None:
    untrained = table("vllm", {2: SentenceResult([], status=ErrorCode.ENGINE_UNTRAINED)})
    assert set(choose_readings(RULES, untrained, np.array([True]))["engine"].to_pylist()) == {"lexicon"}
    queue, counts = compare_readings(RULES, untrained, np.array([True]), SENTENCE_TABLE)
    assert (queue.num_rows, counts["model_answers_used"]) == (0, 0)


def test_disagreement_of_doubts_and_audit_goes_to_the_queue() -> None:
    queue, counts = compare_readings(RULES, MODEL, IS_DOUBT, SENTENCE_TABLE)
    rows = queue.to_pylist()
    assert [(r["sentence_id"], r["reason"], r["kinds"], r["count"]) for r in rows] == [
        (2, "doubt", ["category"], 8),
        (4, "audit", ["side"], 6),
    ]
    assert (rows[0]["doubts"], rows[0]["rules"][0]["category"], rows[0]["model"][0]["category"]) == (
        ["mixed_cues"], "nodule", "mass",
    )  # fmt: skip
    assert counts == {"sentences_audited": 1, "model_answers_used": 1, "audit_answered": 1, "audit_agreed": 0}


def test_equal_sentences_are_folded_and_a_collision_is_found() -> None:
    def rows(*items: tuple[int, str, str | None, int]) -> pa.Table:
        keys = ("sentence_id", "text", "context", "count")
        return SENTENCES.from_rows([{**dict(zip(keys, i, strict=True)), "section_group": "body"} for i in items])

    merged = merge_sentences(rows((5, "b", None, 2), (-1, "a", "x", 1), (5, "b", None, 3)))
    assert merged.select(["sentence_id", "text", "context", "count"]).to_pylist() == [
        {"sentence_id": -1, "text": "a", "context": "x", "count": 1},
        {"sentence_id": 5, "text": "b", "context": None, "count": 5},
    ]
    assert merge_sentences(rows()).num_rows == 0
    for other in ((5, "c", None, 1), (5, "b", "x", 1)):
        with pytest.raises(MedfilipError) as caught:
            merge_sentences(rows((5, "b", None, 2), other))
        assert caught.value.code is ErrorCode.ID_COLLISION


def test_mentions_point_at_the_reports_own_characters() -> None:
    texts = ["FINDINGS: 1. Small   LEFT effusion. No pneumothorax.", "IMPRESSION: Small left effusion."]
    engine, occurrences, lookup = LexiconEngine(), [], {}
    for number, text in enumerate(texts):
        for s in report_sentences(text, split_sections(text)):
            slots = ("sentence_id", "section", "start", "end", "position")
            occurrences.append({"report_id": f"r{number}", **{slot: getattr(s, slot) for slot in slots}})
            lookup[s.sentence_id] = (s.text, engine.extract(s.text).findings)
    held = pa.Table.from_pylist(
        [
            {"sentence_id": i, "text": lookup[i][0], "engine": "lexicon", "findings": lookup[i][1]}
            for i in sorted(lookup)
        ],
        schema=LOOKUP,
    )
    reports = pa.table({"report_id": ["r0", "r1"], "study_id": ["s0", "s1"], "text": texts})
    mentions = mentions_of(OCCURRENCES.from_rows(occurrences), held, reports).to_pylist()
    assert [(m["study_id"], m["category"]) for m in mentions] == [
        ("s0", "pleural_effusion"), ("s0", "pneumothorax"), ("s1", "pleural_effusion"),
    ]  # fmt: skip
    for mention in mentions:
        text = texts[int(mention["report_id"][1])]
        said = {span["slot"]: text[span["start"] : span["end"]] for span in mention["evidence"]}
        assert said["mention"].lower() in ("effusion", "pneumothorax")
        if mention["category"] == "pleural_effusion":
            assert said["laterality"].lower() == "left"
    assert mentions_of(OCCURRENCES.from_rows(occurrences), LOOKUP.empty_table(), reports).num_rows == 0


def test_lookup_reads_only_what_was_asked_from_every_range(tmp_path: Path) -> None:
    ids = [bucket_bounds(bucket, 3)[0] + 1 for bucket in range(3)]
    for bucket, sentence in enumerate(ids):
        rows = [{"sentence_id": sentence + n, "text": "t", "engine": "e", "findings": []} for n in range(3)]
        table = pa.Table.from_pylist(rows, schema=LOOKUP)
        (Location.parse(tmp_path) / lookup_name(bucket)).write_bytes(encode_lookup(table))
    asked = np.array([ids[0], ids[0] + 9, ids[2] + 1], np.int64)
    assert look_up(Location.parse(tmp_path), asked, 3)["sentence_id"].to_pylist() == [ids[0], ids[2] + 1]


def test_a_lookup_file_with_a_flipped_byte_is_named(tmp_path: Path) -> None:
    file = tmp_path / lookup_name(0)
    rows = [{"sentence_id": 1, "text": "t" * 50, "engine": "e", "findings": []}]
    data = bytearray(encode_lookup(pa.Table.from_pylist(rows, schema=LOOKUP)))
    data[data.index(b"tttt")] ^= 1
    Location.parse(file).write_bytes(bytes(data))
    with pytest.raises(MedfilipError, match=r"part-00000\.arrow.*damaged") as caught:
        look_up(Location.parse(tmp_path), np.array([1], np.int64), 1)
    assert caught.value.code is ErrorCode.SHARD_CORRUPT
