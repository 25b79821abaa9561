"""Settings of the language model engines, each field with what it does."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medfilip.core.settings import Settings, operational


class VllmSettings(Settings):
    """Settings of the vLLM engine."""

    model: str = Field(
        "",
        description="model folder, or a Hugging Face name where there is a network; empty: for reports, the small "
        "extractor of the package",
    )
    lora: str = Field("", description="folder of a LoRA adapter for the model; empty: none")
    max_lora_rank: int = operational(16, ge=1, le=512, description="largest rank of the adapter")
    quantization: str = Field(
        "", description="how weights are stored, such as awq, gptq, fp8; empty: as the model says"
    )
    dtype: str = Field("auto", description="number format of the weights")
    max_model_len: int = Field(2048, ge=256, description="longest prompt plus reply, in tokens")
    max_output_tokens: int = Field(256, ge=16, description="longest reply, in tokens")
    tensor_parallel_size: int = operational(1, ge=1, description="GPUs one engine is spread over")
    min_replicas: int = operational(1, ge=1, description="engines running at least")
    max_replicas: int = operational(1, ge=1, description="engines running at most")
    gpu_memory_share: float = operational(0.9, gt=0, le=1, description="share of a GPU's memory that an engine takes")
    batch_size: int = operational(32, ge=1, description="sentences sent to an engine at once")
    max_concurrent_batches: int = operational(8, ge=1, description="batches in one engine at a time")
    max_restarts: int = operational(20, ge=0, description="times a dead engine is started again before the job stops")
    cpu_kv_cache_gb: int = operational(1, ge=1, description="key-value cache of an engine without a GPU, in GB")

    @model_validator(mode="after")
    def _check_replicas(self) -> VllmSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self


class OpenaiSettings(Settings):
    """Settings of an OpenAI-compatible endpoint; its key comes from MEDFILIP_OPENAI_API_KEY, never from here."""

    base_url: str = Field("", description="address up to the version, such as https://HOST/v1")
    model: str = Field("", description="name of the model there")
    max_output_tokens: int = Field(256, ge=16, description="longest reply, in tokens")
    concurrency: int = operational(16, ge=1, le=1024, description="requests under way at once")
    timeout_s: float = operational(60.0, gt=0, description="longest wait for one answer, in seconds")
    max_tries: int = operational(5, ge=1, le=20, description="requests for one sentence, the first included")


class DraftSettings(Settings):
    """Settings of ``attributes=llm``: what a model is asked about the looks of findings."""

    engine: Literal["vllm", "openai"] = Field("vllm", description="vllm (local), or openai (needs --allow-remote)")
    drafts: int = Field(100, ge=0, description="entries drafted at most, for the most frequent unknown categories")
    min_count: int = Field(2, ge=1, description="findings that an unknown category must have to be drafted")
    texts: int = Field(20_000, ge=0, description="distinct findings described at most, the most frequent first")


class AutoSettings(Settings):
    """Settings of ``engine=auto``: rules first, a model for what they doubt."""

    model: Literal["vllm", "openai"] = Field("vllm", description="engine for what the rules cannot settle")
    audit_share: float = Field(0.02, ge=0, le=1, description="share of settled sentences the model reads as well")
    seed: int = Field(0, ge=0, lt=1 << 31, description="of the draw of that share")
    doubtful: Literal["auto", "model", "rules"] = Field(
        "auto",
        description="whose findings count where the rules doubt: the model's, or the rules' and the model only fills "
        "the review queue; auto: a student is no better than rules, any other model counts",
    )
