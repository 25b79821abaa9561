"""Engines by their settings: what is refused before anything starts, what the fingerprint covers, what fits a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings, to_yaml
from medfilip.distillation.shipped import SHIPPED
from medfilip.extraction.prompt import load_prompt
from medfilip.extraction.tiny_llm import make_tiny_llm
from pipelines.engines import openai_extractor
from pipelines.extract import ExtractSettings, _extractor_versions, _extractors, _model_counts
from pipelines.llm_settings import OpenaiSettings, VllmSettings
from pipelines.llm_task import EXTRACTION
from pipelines.vllm_plan import count_tokens, engine_arguments, fits_model, vllm_fingerprint

ENDPOINT = OpenaiSettings(base_url="http://127.0.0.1:1/v1", model="m")


def test_no_address_is_asked_without_permission_not_even_one_on_this_machine() -> None:
    with pytest.raises(MedfilipError) as caught:
        openai_extractor(ENDPOINT, allow_remote=False)
    assert caught.value.code is ErrorCode.REMOTE_NOT_ALLOWED and "--allow-remote" in str(caught.value)
    assert openai_extractor(ENDPOINT, allow_remote=True).name == "openai"


def test_an_address_and_a_model_are_needed() -> None:
    with pytest.raises(MedfilipError, match=r"openai\.base_url"):
        openai_extractor(OpenaiSettings(model="m"), allow_remote=True)


def test_the_key_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDFILIP_OPENAI_API_KEY", "do-not-print")
    settings = load_settings(ExtractSettings, "extract", overrides=["reports=/x", "engine=openai"])
    assert "do-not-print" not in to_yaml(settings) and "api_key" not in to_yaml(settings)


def test_how_fast_and_whether_allowed_does_not_change_what_is_found() -> None:
    other = ENDPOINT.model_copy(update={"concurrency": 3, "timeout_s": 1.0})
    changed = ENDPOINT.model_copy(update={"model": "n"})
    one, same, different = (openai_extractor(s, allow_remote=True).fingerprint for s in (ENDPOINT, other, changed))
    assert one == same != different
    settings = load_settings(ExtractSettings, "extract", overrides=["reports=/x", "allow_remote=true", "estimate=true"])
    assert settings.semantic() == load_settings(ExtractSettings, "extract", overrides=["reports=/x"]).semantic()


def test_vllm_gets_what_its_settings_say() -> None:
    settings = VllmSettings(
        tensor_parallel_size=4, lora="/adapter", max_lora_rank=32, quantization="fp8", gpu_memory_share=0.7
    )
    on_gpu = engine_arguments(settings, on_gpu=True)
    expected = {
        "tensor_parallel_size": 4, "enable_lora": True, "max_lora_rank": 32, "quantization": "fp8",
        "gpu_memory_utilization": 0.7, "enable_prefix_caching": True,
    }  # fmt: skip
    assert on_gpu.items() >= expected.items()
    plain = engine_arguments(VllmSettings(), on_gpu=False)
    assert plain["enforce_eager"] and not {"quantization", "enable_lora", "gpu_memory_utilization"} & plain.keys()


def test_fewest_replicas_are_not_more_than_most() -> None:
    with pytest.raises(MedfilipError, match="min_replicas"):
        load_settings(ExtractSettings, "extract", overrides=["reports=/x", "vllm.min_replicas=2"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> VllmSettings:
    return VllmSettings(model=str(make_tiny_llm(tmp_path_factory.mktemp("llm"))))


def test_the_fingerprint_covers_weights_adapter_and_settings(tiny: VllmSettings, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"1")
    with_adapter = tiny.model_copy(update={"lora": str(adapter)})
    first = vllm_fingerprint(with_adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"2")
    assert len({vllm_fingerprint(tiny), first, vllm_fingerprint(with_adapter)}) == 3
    moved = VllmSettings(model=str(make_tiny_llm(tmp_path / "elsewhere")))
    assert vllm_fingerprint(moved) == vllm_fingerprint(tiny), "where a model lies decides nothing"
    with pytest.raises(MedfilipError, match=r"vllm\.lora"):
        vllm_fingerprint(tiny.model_copy(update={"lora": str(tmp_path / "nowhere")}))


def test_what_does_not_fit_the_model_is_known_before_the_engine(tiny: VllmSettings) -> None:
    prefix = count_tokens(tiny.model, "")
    text = "patchy opacity " * 20
    tokens = count_tokens(tiny.model, text)
    assert prefix < tokens < prefix + len(text)
    for room, fits in ((tokens, True), (tokens - 1, False)):
        settings = tiny.model_copy(update={"max_model_len": room + 64})
        assert fits_model(text, None, settings=settings, budget=64, prefix_tokens=prefix) is fits
    too_long = "a" * (load_prompt().max_sentence_characters + 1)
    assert not fits_model(too_long, None, settings=tiny, budget=64, prefix_tokens=prefix)


def test_a_student_only_fills_the_review_queue_unless_told_otherwise(tiny: VllmSettings) -> None:
    def counts(*overrides: str) -> bool:
        return _model_counts(load_settings(ExtractSettings, "extract", overrides=["reports=/x", *overrides]))

    assert not counts("engine=auto") and not counts(f"vllm.model={SHIPPED}")
    assert counts("auto.doubtful=model") and counts(f"vllm.model={tiny.model}") and counts("auto.model=openai")
    assert not counts(f"vllm.model={tiny.model}", "auto.doubtful=rules")


def test_who_counts_changes_the_run(tiny: VllmSettings) -> None:
    names = set()
    for doubtful in ("auto", "model", "rules"):
        overrides = ["reports=/x", "engine=auto", f"vllm.model={tiny.model}", f"auto.doubtful={doubtful}"]
        settings = load_settings(ExtractSettings, "extract", overrides=overrides)
        names.add(_extractor_versions(settings, _extractors(settings))["extractor"])
    assert len(names) == 2, "a general model counts unless told otherwise"


def test_without_a_model_the_shipped_one_reads_and_the_screen_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings(ExtractSettings, "extract", overrides=["reports=/x", "engine=vllm"])
    shipped = vllm_fingerprint(VllmSettings(model=str(SHIPPED)), EXTRACTION)
    assert [extractor.fingerprint for extractor in _extractors(settings)] == [shipped]
    assert "synthetic sentences" in " ".join(capsys.readouterr().out.split())
