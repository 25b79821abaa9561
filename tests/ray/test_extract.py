"""Extract on Ray: every sentence once, evidence in the report's own words, the cache, and corrupt input."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.corpus import read_truth
from medfilip.storage.location import Location
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import Ran, run_job


def test_sentences_and_occurrences_agree(extracted: Ran) -> None:
    sentences = read_dataset(extracted.location, extracted.manifest, "sentences")
    occurrences = read_dataset(extracted.location, extracted.manifest, "occurrences")
    ids = sentences["sentence_id"].to_pylist()
    assert ids == sorted(set(ids)), "each once, sorted over all shards"
    assert sum(sentences["count"].to_pylist()) == occurrences.num_rows
    assert set(occurrences["sentence_id"].to_pylist()) == set(ids)


def test_evidence_is_in_the_reports_own_words(extracted: Ran, ingested: Ran) -> None:
    texts = {
        row["report_id"]: row["text"]
        for row in read_dataset(ingested.location, ingested.manifest, "reports").to_pylist()
    }
    mentions = read_dataset(extracted.location, extracted.manifest, "mentions").to_pylist()
    assert len({mention["mention_id"] for mention in mentions}) == len(mentions) > 0
    for mention in mentions:
        text = texts[mention["report_id"]]
        words = {span["slot"]: text[span["start"] : span["end"]].lower() for span in mention["evidence"]}
        assert words["mention"].strip()
        if mention["category"] == "pneumothorax":
            assert "pneumothora" in words["mention"] or words["mention"] == "ptx"
        if mention["laterality"] in ("left", "right") and "laterality" in words:
            # The word, or a lobe's abbreviation that begins with its letter; "lingula" implies a side without a word.
            assert words["laterality"][0] == mention["laterality"][0]


def test_findings_agree_with_the_phantoms_truth(extracted: Ran, corpus: Path) -> None:
    mentions = read_dataset(extracted.location, extracted.manifest, "mentions").to_pylist()
    found = {(m["report_id"], m["category"]) for m in mentions if m["certainty"] == "present"}
    truth = {(t.report_id, f.category) for t in read_truth(corpus) for f in t.findings if f.certainty == "present"}
    categories = {category for _, category in truth}
    found = {pair for pair in found if pair[1] in categories}
    assert len(found & truth) / len(truth) > 0.9
    assert len(found & truth) / len(found) > 0.9


def test_a_second_corpus_uses_what_is_known(extracted: Ran, ingested: Ran, root: Path) -> None:
    again = run_job("extract", f"reports={ingested.location}", f"root={root}", "buckets=2")
    counts = again.manifest.counts
    assert counts["sentences_from_cache"] == counts["distinct_sentences"]
    assert counts["sentences_extracted"] == 0
    same = read_dataset(Ran.of(again).location, again.manifest, "mentions")
    assert same == read_dataset(extracted.location, extracted.manifest, "mentions")


def test_a_corrupt_shard_stops_the_job_with_its_name(ingested: Ran, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(ingested.location.path, copy)
    shard = copy / ingested.manifest.datasets["reports"].shards[0].path
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    with pytest.raises(MedfilipError) as caught:
        run_job("extract", f"reports={Location.parse(copy)}", f"root={tmp_path}/runs")
    assert caught.value.code is ErrorCode.SHARD_CORRUPT
    assert shard.name in str(caught.value)
    assert "ray::" not in str(caught.value) and "Traceback" not in str(caught.value)


def test_the_same_rows_in_a_bucket(extracted: Ran, ingested: Ran, s3_bucket: str) -> None:
    target = f"{s3_bucket}/{uuid.uuid4().hex}"
    outcome = run_job("extract", f"reports={ingested.location}", f"root={target}", "buckets=3")
    assert outcome.location.startswith(target)
    for name in ("sentences", "occurrences", "mentions", "resolved_findings"):
        there = read_dataset(Ran.of(outcome).location, outcome.manifest, name)
        assert there == read_dataset(extracted.location, extracted.manifest, name), name
