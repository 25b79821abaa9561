"""The shipped extractor in a bare vLLM engine: start, speed and memory, each saving taken away in turn.

Usage: ``python -m tests.benchmarks.mini_engine [--sentences 600] [--model FOLDER] [--out OUT.json]``. Sentences are
those of synthetic reports. Each way of running is an engine in a process of its own: as the jobs run it; without the
cache of shared prefixes; under the grammar of free words (xgrammar) in place of copies of the sentence (guidance). The
bare time to write and compile the grammars of all sentences, which an engine spreads over its decoding, is measured
apart.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from pathlib import Path
from typing import Any

# Before vLLM is imported: as the job's actors have it, but in one process, whose memory is then all there is.
os.environ.update({"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"})
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from medfilip.distillation.shipped import SHIPPED
from medfilip.extraction.reply_format import reply_grammar
from pipelines.llm_settings import VllmSettings
from pipelines.llm_task import EXTRACTION, copying
from pipelines.vllm_plan import engine_arguments
from tests.benchmarks.environment import write_result
from tests.benchmarks.ray_over_llm import distinct_sentences

WAYS: dict[str, dict[str, bool]] = {
    "as jobs run it": {},
    "without prefix caching": {"caching": False},
    "free words": {"copies": False},
}
_WARM = 32
_MIB = 1 << 10


def measure(model: str, count: int, *, caching: bool = True, copies: bool = True) -> dict[str, Any]:
    """Start an engine, warm it, and read the sentences once."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    task, settings = EXTRACTION.for_model(model), VllmSettings(model=model)
    arguments = engine_arguments(settings, on_gpu=False, backend="guidance" if copies else "xgrammar")
    begun = time.monotonic()
    llm = LLM(model=model, disable_log_stats=True, **(arguments | {"enable_prefix_caching": caching}))
    started = time.monotonic() - begun
    template = llm.get_tokenizer().apply_chat_template
    asked = [(row["text"], row["context"]) for row in distinct_sentences(count + _WARM).to_pylist()]
    prompts = [
        template(task.template().messages(*one), tokenize=False, add_generation_prompt=True) for one in asked
    ]  # fmt: skip
    parameters = [
        SamplingParams(
            temperature=0.0,
            max_tokens=settings.max_output_tokens,
            structured_outputs=StructuredOutputsParams(
                grammar=task.decoding(text)["grammar"] if copies else reply_grammar()
            ),
        )
        for text, _ in asked
    ]
    llm.generate(prompts[:_WARM], parameters[:_WARM], use_tqdm=False)
    begun = time.monotonic()
    outputs = llm.generate(prompts[_WARM:], parameters[_WARM:], use_tqdm=False)
    seconds = time.monotonic() - begun
    written = sum(len(output.outputs[0].token_ids) for output in outputs)
    read = sum(len(output.prompt_token_ids or ()) for output in outputs)
    cached = sum(output.num_cached_tokens or 0 for output in outputs)
    return {
        "seconds_to_start": round(started, 1),
        "sentences_per_second": round(count / seconds, 1),
        "output_tokens_per_second": round(written / seconds, 1),
        "output_tokens_per_sentence": round(written / count, 1),
        "input_tokens_per_sentence": round(read / count, 1),
        "share_of_input_cached": round(cached / read, 3),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MIB,
    }


def measure_grammars(model: str, count: int) -> dict[str, float]:
    """Write and compile the grammar of each sentence by itself."""
    from transformers import AutoTokenizer

    from medfilip.distillation.constrained import GrammarDecoder

    decoder, writer = GrammarDecoder(AutoTokenizer.from_pretrained(model)), copying()
    texts = [row["text"] for row in distinct_sentences(count).to_pylist()]
    begun = time.monotonic()
    grammars = [writer.grammar(text) for text in texts]
    written = time.monotonic()
    for grammar in grammars:
        decoder.matcher(grammar)
    compiled = time.monotonic()
    return {
        "write_ms": round(1e3 * (written - begun) / count, 2),
        "compile_ms": round(1e3 * (compiled - written) / count, 2),
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=600)
    parser.add_argument("--model", default=str(SHIPPED))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {"grammars": measure_grammars(given.model, given.sentences)}
    for name, way in WAYS.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result[name] = pool.apply(measure, (given.model, given.sentences), way)
        print(name, json.dumps(result[name]), flush=True)
    write_result(given.out, result)


if __name__ == "__main__":
    main()
