"""The vLLM plan with a real engine on this machine's CPU and random weights made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medfilip.core.errors import ErrorCode
from medfilip.extraction.tiny_llm import make_tiny_llm
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, read_manifest
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import Ran, corpus, ingested, root, run_job

__all__ = ["corpus", "ingested", "root"]

SENTENCES = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vllm")
    return make_tiny_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def plain(ingested: Ran, root: Path, model: Path) -> tuple[Manifest, list[dict[str, Any]]]:
    """A run of the model as it is."""
    return read_by_model(ingested, root, model)


def read_by_model(ingested: Ran, root: Path, model: Path, *more: str) -> tuple[Manifest, list[dict[str, Any]]]:
    """Let the model read some sentences; return the manifest of the run, and its rows."""
    settings = (f"reports={ingested.location}", f"root={root}", "engine=vllm", f"vllm.model={model}")
    outcome = run_job("extract", *settings, f"max_sentences={SENTENCES}", "vllm.max_output_tokens=48", *more)
    versions, run_id = outcome.manifest.versions, outcome.manifest.run_id
    cache = Location.parse(root) / "sentence_findings" / versions["extractor"] / run_id
    return outcome.manifest, read_dataset(cache, read_manifest(cache), "sentence_findings").to_pylist()


@pytest.mark.timeout(400)
def test_untrained_replies_are_constrained_counted_and_never_findings(
    plain: tuple[Manifest, list[dict[str, Any]]],
) -> None:
    manifest, rows = plain
    assert manifest.counts["sentences_extracted"] == SENTENCES
    assert manifest.rejected == {ErrorCode.ENGINE_UNTRAINED: SENTENCES}
    assert manifest.datasets["mentions"].rows == 0
    assert len({row["sentence_id"] for row in rows}) == SENTENCES
    for row in rows:
        assert row["engine"] == "vllm" and row["findings"] == []
        assert 0 < row["output_tokens"] <= 48 and row["input_tokens"] > 100
        assert row["raw_reply"].startswith('{"f":['), "decoding was constrained by the grammar"
        if row["output_tokens"] < 48:
            json.loads(row["raw_reply"])
    cached = [row["cached_tokens"] for row in rows]
    assert max(cached) > 100 and all(tokens <= row["input_tokens"] for tokens, row in zip(cached, rows, strict=True))
    assert manifest.counts["cached_tokens"] == sum(cached)


@pytest.mark.timeout(300)
def test_a_sentence_that_kills_engines_is_found_and_left_out(
    ingested: Ran, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import vllm_actor
    from tests.support.dying_engine import DyingEngine, is_poison

    monkeypatch.setattr(vllm_actor, "JournaledEngine", DyingEngine)
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


def write_adapter(folder: Path, layers: int = 2, width: int = 128, rank: int = 4) -> Path:
    """Write a LoRA adapter with random weights for the tiny model."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    weights = {}
    for layer in range(layers):
        for module in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights[f"{name}.lora_A.weight"] = torch.randn(rank, width)
            weights[f"{name}.lora_B.weight"] = torch.randn(width, rank)
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.timeout(400)
def test_a_lora_adapter_changes_what_the_engine_says(
    ingested: Ran, root: Path, model: Path, plain: tuple[Manifest, list[dict[str, Any]]], tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    _, rows = read_by_model(ingested, root, model, f"vllm.lora={adapter}", "vllm.max_lora_rank=8")
    said, before = ({row["sentence_id"]: row["raw_reply"] for row in found} for found in (rows, plain[1]))
    assert {row["status"] for row in rows} == {ErrorCode.ENGINE_UNTRAINED}
    assert said.keys() == before.keys() and said != before
