"""The vLLM plan with a real engine on this machine's CPU: the shipped extractor, and random weights made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medfilip.core.errors import ErrorCode
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.tiny_llm import make_tiny_llm
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.shards import read_dataset
from pipelines.job import Outcome
from tests.ray.conftest import Ran, corpus, ingested, root, run_job

__all__ = ["corpus", "ingested", "root"]

SENTENCES = 40


@pytest.mark.timeout(400)
def test_the_shipped_extractor_reads_what_rules_read(ingested: Ran, root: Path) -> None:
    """Without a model named; on synthetic reports, whose plain sentences rules read without a mistake."""
    pytest.importorskip("vllm")
    reports = f"reports={ingested.location}"
    outcome = run_job("extract", reports, f"root={root}", "engine=vllm", f"max_sentences={SENTENCES}")
    assert outcome.manifest.counts["sentences_extracted"] == SENTENCES and not outcome.manifest.rejected
    cache = (
        Location.parse(root) / "sentence_findings" / outcome.manifest.versions["extractor"] / outcome.manifest.run_id
    )
    rows = read_dataset(cache, read_manifest(cache), "sentence_findings").to_pylist()
    sentences = read_dataset(Ran.of(outcome).location, outcome.manifest, "sentences").to_pylist()
    asked = {row["sentence_id"]: (row["text"], row["context"]) for row in sentences}
    assert len({row["sentence_id"] for row in rows}) == SENTENCES
    rules, agreed, stated = LexiconEngine(), 0, 0
    for row in rows:
        text, context = asked[row["sentence_id"]]
        assert row["engine"] == "vllm" and row["status"] == "ok" and row["output_tokens"] > 0
        notes = {note["reason"] for note in row["ungrounded"] or ()}
        assert not notes & {"mention_not_in_sentence", "empty_mention"}, "a student can only quote"
        found = {(finding["category"], finding["certainty"]) for finding in row["findings"]}
        wanted = {(finding["category"], str(finding["certainty"])) for finding in rules.extract(text, context).findings}
        agreed, stated = agreed + 2 * len(found & wanted), stated + len(found) + len(wanted)
    assert stated > SENTENCES and agreed / stated > 0.9
    cached = [row["cached_tokens"] for row in rows]
    assert all(tokens <= row["input_tokens"] for tokens, row in zip(cached, rows, strict=True))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vllm")
    return make_tiny_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def survived(ingested: Ran, root: Path, untrained: Path) -> Outcome:
    """A run of the untrained model, whose engines die of some sentences."""
    from pipelines import vllm_actor
    from tests.support.dying_engine import DyingEngine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_actor, "JournaledEngine", DyingEngine)
        return run_job("extract", *asking(ingested, root, untrained), "vllm.batch_size=16", "vllm.max_restarts=50")


def asking(ingested: Ran, root: Path, model: Path) -> tuple[str, ...]:
    return f"reports={ingested.location}", f"root={root}", "engine=vllm", f"vllm.model={model}"


def rows_of(outcome: Outcome, root: Path) -> dict[int, dict[str, Any]]:
    """Return what the engine said, by sentence."""
    cache = Location.parse(root) / "sentence_findings" / outcome.manifest.versions["extractor"]
    increment = cache / outcome.manifest.run_id
    found = read_dataset(increment, read_manifest(increment), "sentence_findings").to_pylist()
    return {row["sentence_id"]: row for row in found}


@pytest.mark.timeout(300)
def test_a_sentence_that_kills_engines_is_found_and_left_out(survived: Outcome) -> None:
    from tests.support.dying_engine import is_poison

    sentences = read_dataset(Ran.of(survived).location, survived.manifest, "sentences")
    deadly = {
        str(row["sentence_id"])
        for row in sentences.select(["sentence_id", "text"]).to_pylist()
        if is_poison(row["text"])
    }
    rejected = read_dataset(Ran.of(survived).location, survived.manifest, "rejected").to_pylist()
    quarantined = {row["id"] for row in rejected if row["code"] == ErrorCode.ENGINE_QUARANTINED}
    assert quarantined == deadly and deadly, "those and no others"
    assert survived.manifest.rejected == {
        ErrorCode.ENGINE_QUARANTINED: len(deadly),
        ErrorCode.ENGINE_UNTRAINED: sentences.num_rows - len(deadly),
    }
    assert any("--include-quarantined" in step for step in survived.next_steps)


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
    ingested: Ran, root: Path, untrained: Path, survived: Outcome, tmp_path: Path
) -> None:
    """Untrained replies are constrained by the grammar, and never findings."""
    adapter = write_adapter(tmp_path / "adapter")
    more = (f"vllm.lora={adapter}", "vllm.max_lora_rank=8", "max_sentences=4")
    outcome = run_job("extract", *asking(ingested, root, untrained), *more)
    assert outcome.manifest.datasets["mentions"].rows == 0
    said, before = rows_of(outcome, root), rows_of(survived, root)
    assert len(said) == 4 and {row["status"] for row in said.values()} == {ErrorCode.ENGINE_UNTRAINED}
    for row in (*said.values(), *(row for row in before.values() if row["status"] == ErrorCode.ENGINE_UNTRAINED)):
        assert row["raw_reply"].startswith('{"f":[') and row["findings"] == []
    assert any(row["raw_reply"] != before[key]["raw_reply"] for key, row in said.items())
