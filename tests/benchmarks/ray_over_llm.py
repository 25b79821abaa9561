"""What Ray costs over the bare engine: the vLLM plan of the job beside ``LLM.generate`` on the same prompts.

Usage: ``python -m tests.benchmarks.ray_over_llm [--sentences 1500] [--model FOLDER | --hidden-size 768 --layers 12]
[--out OUT.json]``. Steady state alone is compared. On Ray that is the arrival of rows between the first quarter and the
last tenth, when as many sentences are in the engine as ever; bare, it is what the second half of a longer call takes
beyond a shorter one, so that filling and draining cancel. Without a model, one with random weights is made on the spot,
by default a tiny one: what Ray costs shows best beside it, and its share of a real job beside one that takes as long as
a real model.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

# Before vLLM is imported: as the job's actors have it.
os.environ.update({"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"})
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.extraction.prompt import messages
from medfilip.extraction.reply_format import reply_grammar
from medfilip.extraction.tiny_llm import make_tiny_llm
from medfilip.phantom.study import make_report
from medfilip.reports.sections import split_sections
from medfilip.reports.sentences import report_sentences
from medfilip.storage.location import Location
from pipelines.engines import PlanOptions
from pipelines.llm_settings import VllmSettings
from pipelines.vllm_plan import engine_arguments, vllm_plan
from serve.cluster import LocalRaySettings, ray_session
from tests.benchmarks.environment import write_result

_FROM, _TO = 0.25, 0.9
_WARM = 64


def distinct_sentences(count: int) -> pa.Table:
    """Return so many distinct sentences of synthetic reports, as the job would give them to an engine."""
    found: dict[int, tuple[str, str | None]] = {}
    number = 0
    while len(found) < count:
        text = make_report(0, number).text
        for sentence in report_sentences(text, split_sections(text)):
            found.setdefault(sentence.sentence_id, (sentence.text, sentence.context))
        number += 1
    rows = [{"sentence_id": i, "text": t, "context": c} for i, (t, c) in list(found.items())[:count]]
    schema = pa.schema([("sentence_id", pa.int64()), ("text", pa.string()), ("context", pa.string())])
    return pa.Table.from_pylist(rows, schema=schema)


def measure_ray(sentences: pa.Table, settings: VllmSettings, folder: Path, rows_per_block: int) -> dict[str, Any]:
    """Run the job's plan and return the rate at which rows arrive once they do."""
    import ray

    pq.write_table(sentences, folder / "sentences.parquet")
    arrivals: list[tuple[float, int, int]] = []
    done = tokens = 0
    with ray_session(LocalRaySettings()):
        begun = time.monotonic()
        dataset = ray.data.read_parquet(str(folder / "sentences.parquet"))
        dataset = dataset.repartition(target_num_rows_per_block=rows_per_block)
        dataset = vllm_plan(dataset, settings, PlanOptions(Location.parse(folder / "staging")))
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            done += batch.num_rows
            tokens += int(np.sum(batch["output_tokens"].to_numpy()))
            arrivals.append((time.monotonic(), done, tokens))
    steady = [one for one in arrivals if _FROM * done <= one[1] <= _TO * done]
    (first, rows, out), (last, more_rows, more_out) = steady[0], steady[-1]
    return {
        "rows": done,
        "seconds_with_start": round(last - begun, 1),
        "seconds_to_first_rows": round(arrivals[0][0] - begun, 1),
        "steady_rows": more_rows - rows,
        "steady_seconds": round(last - first, 2),
        "rows_per_second": round((more_rows - rows) / (last - first), 2),
        "output_tokens_per_second": round((more_out - out) / (last - first), 1),
    }


def measure_bare(sentences: pa.Table, settings: VllmSettings) -> dict[str, Any]:
    """Give the same prompts to ``LLM.generate``, once warm, a third of them and then the rest."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    begun = time.monotonic()
    llm = LLM(model=settings.model, disable_log_stats=True, **engine_arguments(settings, on_gpu=False))
    started = time.monotonic() - begun
    template = llm.get_tokenizer().apply_chat_template
    prompts = [
        template(messages(row["text"], row["context"]), tokenize=False, add_generation_prompt=True)
        for row in sentences.to_pylist()
    ]
    parameters = SamplingParams(
        temperature=0.0,
        max_tokens=settings.max_output_tokens,
        structured_outputs=StructuredOutputsParams(grammar=reply_grammar()),
    )
    warm, rest = prompts[:_WARM], prompts[_WARM:]
    cut = len(rest) // 3
    llm.generate(warm, parameters, use_tqdm=False)
    seconds, tokens = [], []
    for part in (rest[:cut], rest[cut:]):
        begun = time.monotonic()
        outputs = llm.generate(part, parameters, use_tqdm=False)
        seconds.append(time.monotonic() - begun)
        tokens.append(sum(len(output.outputs[0].token_ids) for output in outputs))
    rows = len(rest) - 2 * cut
    return {
        "rows": len(rest),
        "seconds_to_start": round(started, 1),
        "seconds": [round(value, 2) for value in seconds],
        "rows_per_second_overall": round(len(rest) / sum(seconds), 2),
        "rows_per_second": round(rows / (seconds[1] - seconds[0]), 2),
        "output_tokens_per_second": round((tokens[1] - tokens[0]) / (seconds[1] - seconds[0]), 1),
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--model", help="folder of a model; by default a small untrained one")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--output-tokens", type=int, default=48)
    parser.add_argument("--rows-per-block", type=int, default=64)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or str(make_tiny_llm(folder / "llm", hidden_size=given.hidden_size, layers=given.layers))
        settings = VllmSettings(model=model, max_output_tokens=given.output_tokens)
        sentences = distinct_sentences(given.sentences)
        on_ray = measure_ray(sentences, settings, folder, given.rows_per_block)
        bare = measure_bare(sentences, settings)
    overhead = {
        name: round(100 * (bare[f"{name}_per_second"] / on_ray[f"{name}_per_second"] - 1), 1)
        for name in ("rows", "output_tokens")
    }
    # Beside the percentage: Ray's share of a row is the same for a larger model, whose own share is larger.
    per_row = 1000 / on_ray["rows_per_second"] - 1000 / bare["rows_per_second"]
    write_result(
        given.out,
        {"model": Path(given.model).name if given.model else f"untrained, {given.layers} layers of {given.hidden_size}",
         "sentences": given.sentences, "max_output_tokens": given.output_tokens, "ray": on_ray, "bare": bare,
         "overhead_percent": overhead, "overhead_milliseconds_a_row": round(per_row, 2)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
