"""vLLM actors through ``ray.data.llm``: sentences (or other requests) in, constrained replies out, read into rows."""

from __future__ import annotations

import json
import secrets
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.tiny_llm import is_untrained
from pipelines.engines import Extractor, PlanOptions, cluster_has_gpus, engine_environment, timed_table
from pipelines.forecast import PROBE_ROWS
from pipelines.llm_settings import VllmSettings
from pipelines.llm_task import EXTRACTION, LlmTask

if TYPE_CHECKING:
    from ray.data import Dataset

ENGINE_VERSION = "2"
_ERROR = "__inference_error__"
_RESPITE_TOKENS = 16
"""Tokens a chat template may add that are not counted in the shared part."""


def vllm_fingerprint(settings: VllmSettings, task: LlmTask = EXTRACTION) -> str:
    """Return the fingerprint of all that decides a reply: weights, prompt, grammar, decoding and ontology."""
    task = task.for_model(settings.model)
    adapter = _weights_fingerprint(settings.lora, "vllm.lora", "adapter_config.json") if settings.lora else ""
    return fingerprint(
        [
            "vllm",
            ENGINE_VERSION,
            task.template().fingerprint,
            _model_fingerprint(settings.model),
            adapter,
            settings.semantic() | {"model": "", "lora": ""},
            task.reader().fingerprint,
            *filter(None, [task.copying]),
        ]
    )


def vllm_extractor(settings: VllmSettings, task: LlmTask = EXTRACTION) -> Extractor:
    """Return the vLLM engine for a task; it is put with the prompt that the model folder names."""

    def lanes() -> int:
        return min(PROBE_ROWS, settings.batch_size * settings.max_concurrent_batches) * settings.max_replicas

    return Extractor(
        "vllm",
        vllm_fingerprint(settings, task),
        lambda dataset, options: vllm_plan(dataset, settings, options, task),
        lanes,
        gpus=settings.tensor_parallel_size * settings.max_replicas,
    )


def vllm_plan(dataset: Dataset, settings: VllmSettings, options: PlanOptions, task: LlmTask = EXTRACTION) -> Dataset:
    """Return the plan: prompt → vLLM actors → reply → rows of the task; one row for each sentence or request."""
    try:
        import vllm  # noqa: F401
        from ray.data.llm import build_processor

        from pipelines.vllm_actor import JournaledEngine
    except ImportError as error:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING,
            "vLLM is not installed.",
            fix="Install 'medfilip[llm]' (GPU) or infra/requirements/cpu-llm.txt (CPU), or set engine=lexicon.",
        ) from error
    task = task.for_model(settings.model)
    budget = min(settings.max_output_tokens * options.budget_factor, settings.max_model_len // 2)
    to_prompt = partial(
        _to_prompt,
        settings=settings,
        budget=budget,
        prefix_tokens=count_tokens(settings.model, "", task=task) + _RESPITE_TOKENS,
        task=task,
    )
    processor = build_processor(
        _processor_config(settings, "guidance" if task.copying else "xgrammar"),
        preprocess=to_prompt,
        postprocess=_keep_reply,
        preprocess_map_kwargs={"num_cpus": 0.25},
        postprocess_map_kwargs={"num_cpus": 0.25},
    )
    stage = next(stage for name, stage in processor.stages.items() if name.startswith("vLLMEngineStage"))
    # Past the model's own assignment, which would work out the resources again and ask for a GPU.
    vars(stage)["fn"] = JournaledEngine
    stage.fn_constructor_kwargs.update(journal=str(options.staging / "journal"), session=secrets.token_hex(6))
    # Ray's own default is for ever: a node whose GPU is broken would restart its engine until somebody looks.
    stage.map_batches_kwargs.update(max_restarts=settings.max_restarts, max_task_retries=-1)
    untrained = is_untrained(settings.model)
    read = partial(_read_replies, budget=budget, untrained=untrained, timed=options.timed, task=task)
    return processor(dataset).map_batches(read, batch_format="pyarrow", num_cpus=0.25)


def _processor_config(settings: VllmSettings, backend: str) -> Any:
    from ray.data.llm import vLLMEngineProcessorConfig

    on_gpu = cluster_has_gpus()
    environment = engine_environment() | {"VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gb)}
    if Path(settings.model).exists():
        environment["HF_HUB_OFFLINE"] = "1"
    return vLLMEngineProcessorConfig(
        model_source=settings.model,
        engine_kwargs=engine_arguments(settings, on_gpu=on_gpu, backend=backend),
        batch_size=settings.batch_size,
        max_concurrent_batches=settings.max_concurrent_batches,
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


def engine_arguments(settings: VllmSettings, *, on_gpu: bool, backend: str = "xgrammar") -> dict[str, Any]:
    """Return what vLLM is started with; ``backend`` decodes under grammars, guidance the better if each is new."""
    arguments: dict[str, Any] = {
        "max_model_len": settings.max_model_len,
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enable_prefix_caching": True,
        # Between the parts of a JSON reply small models otherwise spend their whole budget on blanks.
        "structured_outputs_config": {"backend": backend, "disable_any_whitespace": True},
    }
    if settings.quantization:
        arguments["quantization"] = settings.quantization
    if settings.lora:
        arguments |= {"enable_lora": True, "max_lora_rank": settings.max_lora_rank}
    return arguments | ({"gpu_memory_utilization": settings.gpu_memory_share} if on_gpu else {"enforce_eager": True})


@lru_cache(maxsize=2)
def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def count_tokens(model: str, sentence: str, context: str | None = None, *, task: LlmTask = EXTRACTION) -> int:
    """Return the tokens of a sentence's whole prompt, counted with the model's own tokenizer and chat template."""
    text = _tokenizer(model).apply_chat_template(
        task.template().messages(sentence, context), tokenize=False, add_generation_prompt=True
    )
    return len(_tokenizer(model).encode(text, add_special_tokens=False))


def fits_model(
    text: str,
    context: str | None,
    *,
    settings: VllmSettings,
    budget: int,
    prefix_tokens: int,
    task: LlmTask = EXTRACTION,
) -> bool:
    """Whether prompt and reply fit the model; counted only where the number of bytes leaves it open."""
    if not task.template().fits(text):
        return False
    room = settings.max_model_len - budget
    # No tokenizer in use makes more tokens of a text than it has bytes.
    if prefix_tokens + len(text.encode()) + len((context or "").encode()) <= room:
        return True
    return count_tokens(settings.model, text, context, task=task) <= room


def _to_prompt(
    row: dict[str, Any], *, settings: VllmSettings, budget: int, prefix_tokens: int, task: LlmTask
) -> dict[str, Any]:
    text, context = row["text"], row["context"]
    fits = fits_model(text, context, settings=settings, budget=budget, prefix_tokens=prefix_tokens, task=task)
    template = task.template()
    prompt: dict[str, Any] = {
        "sentence_id": row["sentence_id"],
        "text": text,
        "messages": template.messages(text, context) if fits else template.messages("", None),
        "sampling_params": {
            "temperature": 0.0,
            "max_tokens": budget,
            "structured_outputs": task.decoding(text),
        },
        # A row that bears an error passes all stages untouched: what is too long never reaches the engine.
        _ERROR: "" if fits else str(ErrorCode.SENTENCE_TOO_LONG),
    }
    # A row's column 'model' that is not the processor's own names a LoRA adapter to Ray.
    return prompt | ({"model": settings.lora} if settings.lora else {})


def _keep_reply(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "sentence_id": row["sentence_id"],
        "text": row["text"],
        "reply": row["generated_text"],
        "input_tokens": row["num_input_tokens"],
        "output_tokens": row["num_generated_tokens"],
        "cached_tokens": row["num_cached_tokens"],
        "seconds": row["time_taken_llm"],
    }


def _read_replies(rows: pa.Table, *, budget: int, untrained: bool, timed: bool, task: LlmTask) -> pa.Table:
    """Read replies; a row the engine was not given or failed on bypasses `_keep_reply` and has no ``reply``."""
    records = rows.to_pylist()
    results = [_read_reply(row, budget, task, untrained=untrained) for row in records]
    table = task.table(rows["sentence_id"], "vllm", results)
    return timed_table(table, [row.get("seconds") for row in records]) if timed else table


def _read_reply(row: dict[str, Any], budget: int, task: LlmTask, *, untrained: bool) -> Any:
    error, reader = row.get(_ERROR), task.reader()
    if error in (ErrorCode.SENTENCE_TOO_LONG, ErrorCode.ENGINE_QUARANTINED):
        return reader.failed(ErrorCode(error))
    if error or row.get("reply") is None:
        # The engine's own message may quote the prompt: it goes nowhere.
        return reader.failed(ErrorCode.ENGINE_FAILED)
    counted: dict[str, Any] = {name: row[name] for name in ("input_tokens", "output_tokens", "cached_tokens")}
    if untrained:
        # A model with random weights proves the path; what it writes is never a finding, nor knowledge.
        return reader.failed(ErrorCode.ENGINE_UNTRAINED, row["reply"], **counted)
    return reader.read(row["reply"], row["text"], truncated=row["output_tokens"] >= budget, **counted)


def _model_fingerprint(model: str) -> str:
    if not model:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID, "The vllm engine needs a model.", fix="Give vllm.model=FOLDER_OR_NAME."
        )
    if not Path(model).exists() and not model.startswith(("/", ".", "~")):
        return model
    return _weights_fingerprint(model, "vllm.model", "config.json")


def _weights_fingerprint(place: str, setting: str, config_name: str) -> str:
    folder = Path(place)
    if not (folder / config_name).is_file():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"The setting '{setting}' names {place}, which holds no {config_name}.",
            fix="Give the folder of a Hugging Face model or adapter, or a model's name where there is a network.",
        )
    from medfilip.distillation.shipped import weight_hashes

    weights = weight_hashes(folder, [config_name])
    return fingerprint([json.loads((folder / config_name).read_text(encoding="utf-8")), weights])
