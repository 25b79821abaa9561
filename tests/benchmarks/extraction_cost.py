"""What a million reports cost a large model, with and without each saving: tokens are measured, throughput is assumed.

Usage: ``python -m tests.benchmarks.extraction_cost [--data FOLDER] [--phantoms 4000] [--out OUT.json]``. Tokens are
counted with Tekken (131,000 entries, of the size of Llama 3's vocabulary) over Open-I (``MEDFILIP_DATA``) and over
synthetic reports. Savings are added one by one:

- *each sentence*: every sentence of every report is asked about, with instructions and a verbose reply;
- *distinct*: each distinct sentence once. Of a million reports it is the share that the Heaps fit of
  ``distinct_sentences`` extrapolates; the corpus as it is stands beside it;
- *rules first*: only those that the rules doubt, and the audit sample of 2 %;
- *prefix cache*: instructions and examples, the same for all, are computed once;
- *compact reply*: lists of strings instead of keys.

Beside them stand the tokens of a sentence for a distilled model, whose prompt has no instructions.

Throughput: a bf16 model on H100 SXM, by its data sheet 989 TFLOP/s (dense) and 3.35 TB/s (NVIDIA, *H100 Tensor Core
GPU*, 2023). Reading a prompt takes 2 FLOP a weight and token at ``MFU`` of the first; writing takes one pass over the
weights a token for a batch of ``BATCH`` sentences at ``MBU`` of the second. MFU and MBU are assumptions, usual ones for
vLLM; the table scales with them.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.names import Names
from medfilip.extraction.prompt import load_prompt
from medfilip.extraction.reply_format import write_reply
from medfilip.extraction.reply_writer import reply_of
from medfilip.extraction.routing import in_audit
from medfilip.findings.ontology import load_ontology
from medfilip.phantom.study import make_report
from medfilip.reports.sections import split_sections
from medfilip.reports.sentences import report_sentences
from tests.benchmarks.distinct_sentences import heaps_fit, open_i_texts
from tests.benchmarks.environment import write_result
from tests.support.token_counts import Count, mistral_counter, verbose

MILLION = 1_000_000
AUDIT_SHARE = 0.02
FLOPS, BANDWIDTH, MFU, MBU, BATCH = 989e12, 3.35e12, 0.4, 0.5, 128
MODELS = {"8 B": 8e9, "70 B": 70e9}
_BYTES = 2  # of a weight


@dataclass
class _Sentence:
    """Tokens of one distinct sentence."""

    count: int
    asked: int
    verbose: int
    compact: int
    doubted: bool
    student: int


def measure(texts: Iterable[str], count: Count) -> dict[str, Any]:
    """Return tokens and GPU-hours of a million reports like these, saving by saving."""
    distinct, reports, sentences, growth = _read(texts, count)
    prefix = count(load_prompt().system)
    rows = list(distinct.values())
    every = sentences / reports  # sentences of a report
    fit = heaps_fit(np.array([n for n, _ in growth]), np.array([d for _, d in growth]))
    extrapolated = fit["k"] * (every * MILLION) ** fit["exponent"]
    routed = [row for row in rows if row.doubted]
    by_occurrence = [row.count for row in rows]

    def weighted(name: str) -> float:
        return float(np.average([getattr(row, name) for row in rows], weights=by_occurrence))

    def mean(name: str, of: list[_Sentence]) -> float:
        return statistics.fmean(getattr(row, name) for row in of)

    share = len(routed) / len(rows)
    steps: dict[str, tuple[float, float, float]] = {
        "each sentence": (every * MILLION, prefix + weighted("asked"), weighted("verbose")),
        "distinct": (extrapolated, prefix + mean("asked", rows), mean("verbose", rows)),
        "rules first": (share * extrapolated, prefix + mean("asked", routed), mean("verbose", routed)),
        "prefix cache": (share * extrapolated, mean("asked", routed), mean("verbose", routed)),
        "compact reply": (share * extrapolated, mean("asked", routed), mean("compact", routed)),
    }
    return {
        "reports": reports,
        "sentences_of_a_report": round(every, 2),
        "distinct_sentences": len(rows),
        "heaps": fit,
        "distinct_of_a_million_reports": round(extrapolated),
        "share_for_the_model": round(share, 4),
        "prefix_tokens": prefix,
        "tokens_of_a_report": {
            "asked": round(every * (prefix + weighted("asked")), 1),
            "verbose reply": round(every * weighted("verbose"), 1),
            "compact reply": round(every * weighted("compact"), 1),
        },
        "student_tokens_of_a_sentence": round(mean("student", routed) + mean("compact", routed), 1),
        "million_reports": {
            name: {
                "sentences": round(asked),
                "tokens_in": round(asked * into),
                "tokens_out": round(asked * out),
                "gpu_hours": {
                    model: round(gpu_hours(size, asked * into, asked * out), 2) for model, size in MODELS.items()
                },
            }
            for name, (asked, into, out) in steps.items()
        },
    }


def gpu_hours(weights: float, tokens_in: float, tokens_out: float) -> float:
    """Return hours of one H100, whatever number of them holds the weights; see the module's text."""
    reading = 2 * weights * tokens_in / (FLOPS * MFU)
    writing = _BYTES * weights * tokens_out / (BANDWIDTH * MBU * BATCH)
    return (reading + writing) / 3600


def _read(texts: Iterable[str], count: Count) -> tuple[dict[int, _Sentence], int, int, list[tuple[int, int]]]:
    ontology = load_ontology()
    rules, names = LexiconEngine(), Names(ontology)
    prompt, student = load_prompt(), load_prompt("student-v1")
    distinct: dict[int, _Sentence] = {}
    growth: list[tuple[int, int]] = []
    reports = sentences = 0
    for text in texts:
        reports += 1
        for sentence in report_sentences(text, split_sections(text)):
            sentences += 1
            known = distinct.get(sentence.sentence_id)
            if known is not None:
                known.count += 1
                continue
            found = rules.extract(sentence.text, sentence.context)
            reply = reply_of(sentence.text, found.findings, names)
            audited = bool(in_audit(np.array([sentence.sentence_id], np.int64), AUDIT_SHARE, 0)[0])
            distinct[sentence.sentence_id] = _Sentence(
                1,
                count(prompt.messages(sentence.text, sentence.context)[-1]["content"]),
                count(verbose(reply)),
                count(write_reply(reply)),
                bool(found.doubts) or audited,
                sum(count(message["content"]) for message in student.messages(sentence.text, sentence.context)),
            )
        growth.append((sentences, len(distinct)))
    return distinct, reports, sentences, growth


def _phantoms(number: int) -> Iterator[str]:
    for at in range(number):
        yield make_report(11, at).text


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("MEDFILIP_DATA"))
    parser.add_argument("--phantoms", type=int, default=4000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    count = mistral_counter()
    measured = {"synthetic": measure(_phantoms(given.phantoms), count)}
    if given.data:
        measured["open_i"] = measure(open_i_texts(Path(given.data)), count)
    assumed = {"flops": FLOPS, "bandwidth": BANDWIDTH, "mfu": MFU, "mbu": MBU, "batch": BATCH, "audit": AUDIT_SHARE}
    write_result(given.out, {"benchmark": "extraction_cost", "assumed": assumed, "measured": measured})


if __name__ == "__main__":
    main()
