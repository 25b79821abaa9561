"""Synthetic training sets: ``python -m medfilip.distillation.make --count 600000 --out FILE [--processes 16]``.

Blocks of sentences are written, read by rules and checked in several processes; duplicates are dropped and the set is
balanced in one. The file is the same for any number of processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from medfilip.core.fingerprint import fingerprint
from medfilip.distillation.dataset import Row, RowWriter, balanced, reading_of, unique
from medfilip.distillation.grammar import load_grammar
from medfilip.distillation.row_file import write_rows
from medfilip.distillation.sentences import BLOCK, GENERATOR_VERSION, Generator
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.prompt import STUDENT_PROMPT, load_prompt
from medfilip.findings.ontology import load_ontology

MOST = 0.16
"""Largest share of one phenomenon."""


@lru_cache(maxsize=1)
def _tools(seed: int) -> tuple[Generator, LexiconEngine]:
    return Generator(seed), LexiconEngine()


def make_block(number: int, seed: int) -> tuple[list[Row], Counter[str]]:
    """Write one block of sentences, and return the rows that came of it with the counts of the others."""
    generator, rules = _tools(seed)
    writer = RowWriter(load_ontology(), load_prompt(STUDENT_PROMPT))
    rows: list[Row] = []
    for example in generator.block(number):
        reading = reading_of(example, rules.extract(example.text, example.context))
        if isinstance(reading, str):
            writer.counts[reading] += 1
            continue
        row = writer.row(reading)
        if row is not None:
            rows.append(row)
    return rows, writer.counts


def make_rows(count: int, *, seed: int = 0, processes: int = 1) -> tuple[list[Row], Counter[str], dict[str, str]]:
    """Make at least ``count`` drawn sentences into rows, and return them with counts and facts."""
    counts: Counter[str] = Counter()
    blocks = range(-(-count // BLOCK))

    def rows() -> Iterator[Row]:
        work = partial(make_block, seed=seed)
        if processes == 1:
            results: Iterator[tuple[list[Row], Counter[str]]] = map(work, blocks)
            for found, counted in results:
                counts.update(counted)
                yield from found
            return
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            for found, counted in pool.map(work, blocks):
                counts.update(counted)
                yield from found

    kept = balanced(list(unique(rows(), counts)), MOST, counts)
    engine = _tools(seed)[1]
    decided = [GENERATOR_VERSION, seed, count, load_grammar().fingerprint, engine.fingerprint, MOST]
    facts = {
        "synthetic": "true",
        "fingerprint": fingerprint([*decided, load_prompt(STUDENT_PROMPT).fingerprint]),
        "prompt": STUDENT_PROMPT,
        "ontology": load_ontology().fingerprint,
        "counts": json.dumps(dict(sorted(counts.items()))),
    }
    return kept, counts, facts


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a file and print what became of the sentences."""
    parser = argparse.ArgumentParser(prog="python -m medfilip.distillation.make", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=600_000, help="sentences to draw (default: 600000)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    start = time.monotonic()
    rows, counts, facts = make_rows(options.count, seed=options.seed, processes=options.processes)
    write_rows(rows, options.out, facts)
    sys.stdout.write("".join(f"{name:28s} {count:9,d}\n" for name, count in sorted(counts.items())))
    splits = Counter(row.split for row in rows)
    sys.stdout.write(f"rows {len(rows):,d} {dict(splits)} in {time.monotonic() - start:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
