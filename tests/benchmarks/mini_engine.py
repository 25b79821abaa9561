"""The shipped extractor in a bare vLLM engine: start, speed and memory, each saving taken away in turn.

Usage: ``python -m tests.benchmarks.mini_engine [--sentences 600] [--model FOLDER] [--out OUT.json]``. Sentences are
those of synthetic reports. Each way of running is an engine in a process of its own: as the jobs run it; without the
cache of shared prefixes; under the grammar of free words (xgrammar) in place of copies of the sentence (guidance). The
bare time to write and compile the grammars of all sentences, which an engine spreads over its decoding, is measured
apart.

What a large model saves by the compact reply and by the cache of shared prefixes is measured with replies that the
grammar spells out: what the rules find in a sentence, in each form of `reply_tokens`; and behind the instructions that
large models get, with that cache and without. The engine works as if it had chosen those words.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

# Before vLLM is imported: as the job's actors have it, but in one process, whose memory is then all there is.
os.environ.update({"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"})
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from medfilip.distillation.shipped import SHIPPED
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.names import Names
from medfilip.extraction.prompt import load_prompt
from medfilip.extraction.reply_format import Reply, reply_grammar, write_reply
from medfilip.extraction.reply_writer import reply_of
from medfilip.findings.ontology import load_ontology
from pipelines.llm_settings import VllmSettings
from pipelines.llm_task import EXTRACTION, LlmTask, copying
from pipelines.vllm_plan import engine_arguments
from tests.benchmarks.environment import write_result
from tests.benchmarks.ray_over_llm import distinct_sentences
from tests.support.token_counts import keyed, verbose

Replies = Literal["copies", "free words", "compact", "keyed", "verbose"]
FORMS: dict[str, Callable[[Reply], str]] = {"compact": write_reply, "keyed": keyed, "verbose": verbose}
WAYS: dict[str, dict[str, Any]] = {
    "as jobs run it": {},
    "without prefix caching": {"caching": False},
    "free words": {"replies": "free words"},
    "compact replies given": {"replies": "compact"},
    "keyed replies given": {"replies": "keyed"},
    "verbose replies given": {"replies": "verbose"},
    "instructions of large models": {"replies": "compact", "instructed": True},
    "instructions of large models, without prefix caching": {
        "replies": "compact", "instructed": True, "caching": False,
    },
}  # fmt: skip
_WARM = 32
_MIB = 1 << 10


def grammar_writer(task: LlmTask, replies: Replies) -> Callable[[str], str]:
    """Return what writes the grammar of a sentence's reply; that of a given reply admits nothing else."""
    if replies == "copies":
        return lambda text: task.decoding(text)["grammar"]
    if replies == "free words":
        return lambda text: reply_grammar()
    names, rules, write = Names(load_ontology()), LexiconEngine(), FORMS[replies]

    def spell_out(text: str) -> str:
        reply = write(reply_of(text, rules.extract(text, None).findings, names))
        return f"start: {json.dumps(reply, ensure_ascii=False)}"

    return spell_out


def measure(
    model: str, count: int, *, caching: bool = True, replies: Replies = "copies", instructed: bool = False
) -> dict[str, Any]:
    """Start an engine, warm it, and read the sentences once."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    task, settings = EXTRACTION.for_model(model), VllmSettings(model=model)
    arguments = engine_arguments(settings, on_gpu=False, backend="xgrammar" if replies == "free words" else "guidance")
    begun = time.monotonic()
    llm = LLM(model=model, disable_log_stats=True, **(arguments | {"enable_prefix_caching": caching}))
    started = time.monotonic() - begun
    render = llm.get_tokenizer().apply_chat_template
    messages = (load_prompt() if instructed else task.template()).messages
    asked = [(row["text"], row["context"]) for row in distinct_sentences(count + _WARM).to_pylist()]
    prompts = [render(messages(*one), tokenize=False, add_generation_prompt=True) for one in asked]
    grammar = grammar_writer(task, replies)
    parameters = [
        SamplingParams(
            temperature=0.0,
            max_tokens=settings.max_output_tokens,
            structured_outputs=StructuredOutputsParams(grammar=grammar(text)),
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
        "replies_cut_off": sum(output.outputs[0].finish_reason == "length" for output in outputs),
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
