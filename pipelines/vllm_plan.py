"""vLLM actors through ``ray.data.llm``: sentences in, schema-constrained replies out, grounded into findings."""

from __future__ import annotations

import json
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_file
from medfilip.core.settings import Settings, operational
from medfilip.extraction.engine import SentenceResult, results_table
from medfilip.extraction.prompt import PROMPT_VERSION, load_prompt, messages, system_prompt
from medfilip.extraction.reply import ReplyReader
from medfilip.extraction.reply_format import reply_schema
from medfilip.extraction.tiny_llm import is_untrained
from medfilip.findings.ontology import load_ontology
from pipelines.engines import cluster_has_gpus, engine_environment

if TYPE_CHECKING:
    from ray.data import Dataset

ENGINE_VERSION = "1"


class VllmSettings(Settings):
    """Settings of the vLLM engine."""

    model: str = Field("", description="model folder, or a Hugging Face name where there is a network")
    max_model_len: int = Field(2048, ge=256, description="longest prompt plus reply, in tokens")
    max_output_tokens: int = Field(256, ge=16, description="longest reply, in tokens")
    dtype: str = Field("auto", description="number format of the weights")
    batch_size: int = operational(32, ge=1, description="sentences sent to an engine at once")
    min_replicas: int = operational(1, ge=1, description="engines running at least")
    max_replicas: int = operational(1, ge=1, description="engines running at most")
    tensor_parallel_size: int = operational(1, ge=1, description="GPUs one engine is spread over")
    cpu_kv_cache_gb: int = operational(1, ge=1, description="key-value cache of an engine without a GPU, in GB")


def vllm_fingerprint(settings: VllmSettings) -> str:
    """Return the fingerprint of all that decides a reply: model, prompt, schema, decoding and ontology."""
    return fingerprint(
        [
            ENGINE_VERSION,
            PROMPT_VERSION,
            system_prompt(),
            reply_schema(),
            _model_fingerprint(settings.model),
            settings.semantic() | {"model": ""},
            load_ontology().fingerprint,
        ]
    )


def vllm_plan(dataset: Dataset, settings: VllmSettings) -> Dataset:
    """Return the plan: prompt → vLLM actors → reply → grounded findings; one row for each sentence."""
    try:
        import vllm  # noqa: F401
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig
    except ImportError as error:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING,
            "vLLM is not installed.",
            fix="Install 'medfilip[llm]' (GPU) or infra/requirements/cpu-llm.txt (CPU), or set engine=lexicon.",
        ) from error
    on_gpu = cluster_has_gpus()
    engine: dict[str, Any] = {
        "max_model_len": settings.max_model_len,
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enable_prefix_caching": True,
        # Small models otherwise spend their whole budget on blanks between JSON tokens.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        **({} if on_gpu else {"enforce_eager": True}),
    }
    environment = engine_environment() | {"VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gb)}
    if Path(settings.model).exists():
        environment["HF_HUB_OFFLINE"] = "1"
    config = vLLMEngineProcessorConfig(
        model_source=settings.model,
        engine_kwargs=engine,
        batch_size=settings.batch_size,
        concurrency=(settings.min_replicas, settings.max_replicas),
        # One bad row costs one row; without this it ends the job.
        should_continue_on_error=True,
        chat_template_stage={"num_cpus": 0.25, "concurrency": (1, 1)},
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
        runtime_env={"env_vars": environment},
        # Ray asks for a GPU unless told otherwise, and waits for one for ever.
        placement_group_config=None if on_gpu else {"bundles": [{"CPU": 1}]},
    )
    processor = build_processor(
        config,
        preprocess=partial(_to_prompt, max_tokens=settings.max_output_tokens, schema=reply_schema()),
        postprocess=_keep_reply,
        preprocess_map_kwargs={"num_cpus": 0.25},
        postprocess_map_kwargs={"num_cpus": 0.25},
    )
    read = partial(_read_replies, max_tokens=settings.max_output_tokens, untrained=is_untrained(settings.model))
    return processor(dataset).map_batches(read, batch_format="pyarrow", num_cpus=0.25)


def _to_prompt(row: dict[str, Any], *, max_tokens: int, schema: str) -> dict[str, Any]:
    return {
        "sentence_id": row["sentence_id"],
        "text": row["text"],
        "messages": messages(row["text"], row["context"]),
        "sampling_params": {
            "temperature": 0.0,
            "max_tokens": max_tokens,
            "structured_outputs": {"json": schema},
        },
    }


def _keep_reply(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "sentence_id": row["sentence_id"],
        "text": row["text"],
        "reply": row["generated_text"],
        "input_tokens": row["num_input_tokens"],
        "output_tokens": row["num_generated_tokens"],
    }


@lru_cache(maxsize=1)
def _reader() -> ReplyReader:
    return ReplyReader(load_ontology())


def _read_replies(rows: pa.Table, *, max_tokens: int, untrained: bool) -> pa.Table:
    """Ground replies; a row the engine failed on bypasses `_keep_reply` and has no ``reply`` column."""
    results = [_read_reply(row, max_tokens, untrained=untrained) for row in rows.to_pylist()]
    return results_table(rows["sentence_id"], "vllm", results)


def _read_reply(row: dict[str, Any], max_tokens: int, *, untrained: bool) -> SentenceResult:
    if not load_prompt().fits(row["text"]):
        return SentenceResult([], status=ErrorCode.SENTENCE_TOO_LONG)
    if row.get("reply") is None:
        # The engine's own message may quote the prompt: it goes nowhere.
        return SentenceResult([], status=ErrorCode.ENGINE_FAILED)
    outputs = row["output_tokens"]
    result = _reader().read(
        row["reply"],
        row["text"],
        input_tokens=row["input_tokens"],
        output_tokens=outputs,
        truncated=outputs >= max_tokens,
    )
    if not untrained:
        return result
    # A model with random weights proves the path; what it writes is never a finding.
    return SentenceResult(
        [],
        status=ErrorCode.ENGINE_UNTRAINED,
        input_tokens=result.input_tokens,
        output_tokens=result.output_tokens,
        raw_reply=row["reply"],
    )


def _model_fingerprint(model: str) -> str:
    folder = Path(model)
    if not model:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The vllm engine needs a model.",
            fix="Give vllm.model=FOLDER_OR_NAME.",
        )
    if not (folder / "config.json").is_file():
        if folder.exists() or model.startswith(("/", ".", "~")):
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND,
                f"The setting 'vllm.model' names {model}, which holds no config.json.",
                fix="Give the folder of a Hugging Face model, or its name where there is a network.",
            )
        return model
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = sorted(folder.glob("*.safetensors"))
    return fingerprint([config, [[file.name, sha256_file(file)] for file in weights]])
