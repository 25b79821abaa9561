"""The vLLM plan with a real engine on this machine's CPU and random weights made on the spot."""

from __future__ import annotations

import json
import re
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
        assert re.match(r'\{"findings": ?\[', row["raw_reply"]), "decoding was constrained by the schema"
        if row["output_tokens"] < 48:
            json.loads(row["raw_reply"])
