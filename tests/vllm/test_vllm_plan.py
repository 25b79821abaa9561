"""The vLLM plan with a real engine on this machine's CPU and random weights made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode
from medfilip.extraction.tiny_llm import make_tiny_llm
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import Ran, corpus, ingested, root, run_job

__all__ = ["corpus", "ingested", "root"]

SENTENCES = 12


@pytest.mark.timeout(400)
def test_untrained_replies_are_constrained_counted_and_never_findings(
    ingested: Ran, root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("vllm")
    model = make_tiny_llm(tmp_path / "llm")
    settings = (
        f"reports={ingested.location}",
        f"root={root}",
        "engine=vllm",
        f"max_sentences={SENTENCES}",
        f"vllm.model={model}",
        "vllm.max_output_tokens=48",
    )
    outcome = run_job("extract", *settings)
    assert outcome.manifest.counts["sentences_extracted"] == SENTENCES
    assert outcome.manifest.rejected == {ErrorCode.ENGINE_UNTRAINED: SENTENCES}
    assert outcome.manifest.datasets["mentions"].rows == 0
    cache = (
        Location.parse(root) / "sentence_findings" / outcome.manifest.versions["extractor"] / outcome.manifest.run_id
    )
    rows = read_dataset(cache, read_manifest(cache), "sentence_findings").to_pylist()
    assert len({row["sentence_id"] for row in rows}) == SENTENCES
    for row in rows:
        assert row["engine"] == "vllm" and row["findings"] == []
        assert 0 < row["output_tokens"] <= 48 and row["input_tokens"] > 100
        assert row["raw_reply"].startswith('{"f":['), "decoding was constrained by the grammar"
        if row["output_tokens"] < 48:
            json.loads(row["raw_reply"])
    cached = [row["cached_tokens"] for row in rows]
    assert max(cached) > 100 and all(tokens <= row["input_tokens"] for tokens, row in zip(cached, rows, strict=True))
    assert outcome.manifest.counts["cached_tokens"] == sum(cached)


@pytest.mark.timeout(300)
def test_a_sentence_that_kills_engines_is_found_and_left_out(
    ingested: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    from pipelines import vllm_actor
    from tests.support.dying_engine import DyingEngine, is_poison

    monkeypatch.setattr(vllm_actor, "JournaledEngine", DyingEngine)
    model = make_tiny_llm(tmp_path / "llm")
    settings = (f"reports={ingested.location}", f"root={tmp_path}", "engine=vllm", f"vllm.model={model}")
    outcome = run_job("extract", *settings, "vllm.batch_size=16", "vllm.max_restarts=50")
    sentences = read_dataset(Ran.of(outcome).location, outcome.manifest, "sentences")
    deadly = {
        str(row["sentence_id"])
        for row in sentences.select(["sentence_id", "text"]).to_pylist()
        if is_poison(row["text"])
    }
    rejected = read_dataset(Ran.of(outcome).location, outcome.manifest, "rejected").to_pylist()
    quarantined = {row["id"] for row in rejected if row["code"] == ErrorCode.ENGINE_QUARANTINED}
    assert quarantined == deadly and deadly, "those and no others"
    assert outcome.manifest.rejected == {
        ErrorCode.ENGINE_QUARANTINED: len(deadly),
        ErrorCode.ENGINE_UNTRAINED: sentences.num_rows - len(deadly),
    }
    assert any("--include-quarantined" in step for step in outcome.next_steps)
