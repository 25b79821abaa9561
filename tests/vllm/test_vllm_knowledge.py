"""Knowledge through a real vLLM engine with random weights: decoded under our schemas, counted, never used."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode
from medfilip.extraction.tiny_llm import make_tiny_llm
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import Ran, corpus, extracted, ingested, root, run_job
from tests.ray.test_inject import findings

__all__ = ["corpus", "extracted", "findings", "ingested", "root"]

DRAFTS, TEXTS = 2, 4


@pytest.mark.timeout(400)
def test_an_untrained_model_adds_nothing_to_the_texts(findings: Ran, ingested: Ran, root: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    model = make_tiny_llm(tmp_path / "llm")
    given = (f"findings={findings.location}", f"images={ingested.location}", f"root={root}")
    asked = (
        "attributes=llm", f"llm.texts={TEXTS}", f"vllm.model={model}", "vllm.max_output_tokens=64",
        "vllm.max_model_len=4096",
    )  # fmt: skip
    ran = Ran.of(run_job("inject", *given, *asked))
    assert ran.manifest.rejected == {ErrorCode.ENGINE_UNTRAINED: DRAFTS + TEXTS}
    assert ran.manifest.counts["findings_described"] == ran.manifest.counts["entries_drafted"] == 0
    assert not ran.manifest.files
    cache = Location.parse(root) / "knowledge_replies" / ran.manifest.versions["model"] / ran.manifest.run_id
    rows = read_dataset(cache, read_manifest(cache), "knowledge_replies").to_pylist()
    assert len(rows) == DRAFTS + TEXTS
    for row in rows:
        assert row["engine"] == "vllm" and row["reply"] is None and 0 < row["output_tokens"] <= 64
        assert row["input_tokens"] > 300
    begun = sorted(row["raw_reply"][:13] for row in rows)
    expected = ['{"density": ['] * DRAFTS + ['{"phrases": ['] * TEXTS
    assert begun == expected, "decoded under the schemas, which leave no room for more than one blank"
    plain = Ran.of(run_job("inject", *given))
    texts = [read_dataset(run.location, run.manifest, "texts") for run in (ran, plain)]
    assert texts[0] == texts[1]
